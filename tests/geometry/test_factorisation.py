import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_spaces.geometry import Factors, factor, mso_curve, precision_on
from safety_spaces.geometry.factorisation import ORTHONORMALITY_TOLERANCE, gram, orthonormalised
from safety_spaces.geometry.factorisation import deviation as measured_deviation
from tests.geometry.dense import (
    decaying,
    deviation,
    energy,
    gaussian,
    leaning,
    low_rank,
    merged_lora,
    overlap,
    svd,
    trained,
)

PRECISIONS = ("float64", "float32")
FRACTIONS = (0.01, 0.25, 0.5, 0.75, 0.99)
ETAS = (0.01, *(tenths / 10 for tenths in range(1, 10)), 0.99)
ILL_CONDITIONED = {
    "low rank and 1e-3 noise": low_rank(401, 243, 8) + 1e-3 * gaussian(401, 243, seed=9),
    "low rank and 1e-4 noise": low_rank(389, 251, 8) + 1e-4 * gaussian(389, 251, seed=9),
    "merged LoRA of noise above the rank": merged_lora(601, 349, entries=1e-4),
    "very tall, of low rank and 1e-4 noise": low_rank(4099, 37, 4) + 1e-4 * gaussian(4099, 37, seed=9),
}
"""Tall matrices of which a product D W / sigma in float32 is not orthonormal."""
MATRICES = ILL_CONDITIONED | {
    "tall": gaussian(401, 243),
    "wide": gaussian(243, 401),
    "square": gaussian(307, 307),
    "vector": gaussian(501, 1),
    "very tall": gaussian(3001, 17),
    "very wide": gaussian(17, 3001),
    "tall of low rank": low_rank(401, 243, 40),
    "wide of low rank": low_rank(243, 601, 40),
    "transposed view": gaussian(243, 401).T,
    "tiny": 1e-12 * gaussian(211, 190),
    "large": 1e6 * gaussian(190, 211),
    "trained, tall": trained(701, 293),
    "trained, wide": trained(293, 701),
    "decaying to the edge of the rank, tall": decaying(307, 251, 199),
    "decaying to the edge of the rank, wide": decaying(251, 307, 199),
    "merged LoRA, tall": merged_lora(601, 349),
    "merged LoRA, wide": merged_lora(349, 601),
    "low rank and 1e-7 noise": low_rank(401, 243, 8) + 1e-7 * gaussian(401, 243, seed=9),
    "wide of low rank and 1e-4 noise": low_rank(251, 389, 8) + 1e-4 * gaussian(251, 389, seed=9),
}
SMALL = {
    "tall": gaussian(37, 11),
    "very tall": gaussian(501, 3),
    "wide": gaussian(13, 41),
    "square": gaussian(17, 17),
    "tall of low rank": low_rank(37, 11, 4),
    "wide of low rank": low_rank(13, 41, 5),
    "vector": gaussian(19, 1),
    "transposed view": gaussian(23, 7).T,
    "float64": gaussian(26, 15, dtype=torch.float64),
}

either = pytest.mark.parametrize("precision", PRECISIONS)
matrices = pytest.mark.parametrize("D", MATRICES.values(), ids=MATRICES)
small = pytest.mark.parametrize("D", SMALL.values(), ids=SMALL)


@either
@matrices
def test_rank_and_singular_values_equal_those_of_the_dense_svd(D, precision):
    factors, (_, sigma) = factor(D, precision=precision), svd(D)
    assert factors.rank == len(sigma) == len(factors.sigma)
    # What float32 knows of a small singular value is relative to the largest of its level, 1e3 times as large.
    of_each, of_largest = {"float64": (1e-3, 1e-9), "float32": (2e-2, 5e-6)}[precision]
    torch.testing.assert_close(factors.sigma, sigma, rtol=of_each, atol=0)
    torch.testing.assert_close(factors.sigma, sigma, rtol=0, atol=of_largest * float(sigma[0]))


@either
@matrices
def test_vectors_are_orthonormal_and_lie_in_memory_direction_by_direction(D, precision):
    U = factor(D, precision=precision).U
    assert U.dtype == D.dtype
    # A float64 product is left as it is up to the tolerance.
    assert deviation(U) < {"float64": ORTHONORMALITY_TOLERANCE, "float32": 2e-6}[precision]
    assert U.T.is_contiguous()


@either
@matrices
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["unrelated", "leaning"])
def test_energies_of_a_task_equal_the_dense_ones(D, precision, share):
    U, (dense, _), task = factor(D, precision=precision).U, svd(D), leaning(D, seed=99, share=share)
    total = float(task.double().square().sum())
    for fraction in FRACTIONS:
        k = max(1, int(fraction * min(D.shape)))
        assert energy(U, k, task) / total == pytest.approx(energy(dense, k, task) / total, abs=1e-4)


@either
@matrices
def test_overlap_curves_equal_the_dense_ones(D, precision):
    task = leaning(D, seed=98)[:, : max(1, D.shape[1] - 5)]
    for eta, result in mso_curve(*(factor(X, precision=precision) for X in (D, task)), ETAS).items():
        k_first, k_second, mso, chance = overlap(D, task, eta)
        assert (result.k_first, result.k_second, result.mso_chance) == (k_first, k_second, chance)
        assert result.mso == pytest.approx(mso, abs=1e-4)


@either
@small
def test_projectors_of_every_k_equal_the_dense_ones(D, precision):
    factors, (dense, sigma) = factor(D, precision=precision), svd(D)
    assert factors.rank == len(sigma) == torch.linalg.matrix_rank(D.double(), rtol=1e-6)
    torch.testing.assert_close(factors.sigma, sigma, rtol=1e-5, atol=1e-6)
    for k in range(1, factors.rank + 1):
        projector = factors.U[:, :k] @ factors.U[:, :k].T
        torch.testing.assert_close(projector.double(), dense[:, :k] @ dense[:, :k].T, rtol=0, atol=1e-4)


@either
@small
def test_projector_is_symmetric_idempotent_and_of_rank_k(D, precision):
    U = factor(D, precision=precision).U.double()
    for k in range(1, U.shape[1] + 1):
        P = U[:, :k] @ U[:, :k].T
        torch.testing.assert_close(P, P.T)
        torch.testing.assert_close(P @ P, P, rtol=0, atol=1e-5)
        assert float(P.trace()) == pytest.approx(k, abs=1e-4)
    torch.testing.assert_close(P @ D.double(), D.double(), rtol=1e-4, atol=1e-5)


@either
@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 1), (6, 0)])
def test_zero_matrix_has_no_directions(shape, precision):
    factors = factor(torch.zeros(shape), precision=precision)
    assert factors.rank == len(factors.sigma) == 0
    assert factors.U.shape == (shape[0], 0)


@either
@settings(deadline=None, max_examples=40)
@given(
    M=st.integers(1, 90),
    N=st.integers(1, 90),
    r=st.integers(1, 30),
    scale=st.sampled_from((1e-12, 1e-4, 1.0, 1e6)),
    seed=st.integers(0, 2**31),
)
def test_rounding_is_not_counted_as_rank(precision, M, N, r, scale, seed):
    """Of integers, so that the product has the rank that is asked for and no rounding of its own."""
    left, right = (gaussian(*shape, seed=seed + i).mul(3).round() for i, shape in enumerate(((M, r), (r, N))))
    sigma = torch.linalg.svdvals((left @ right).double())
    expected = int((sigma > 1e-6 * sigma[0]).sum())
    factors = factor(scale * (left @ right), precision=precision)
    assert factors.rank == expected
    assert deviation(factors.U) < ORTHONORMALITY_TOLERANCE


@pytest.mark.parametrize("D", ILL_CONDITIONED.values(), ids=ILL_CONDITIONED)
def test_lost_orthogonality_is_mended(D):
    squared, W = torch.linalg.eigh(D.double().T @ D.double())
    sigma = squared.flip(0).clamp(min=0).sqrt()
    rank = int((sigma > 1e-6 * sigma[0]).sum())
    plain = D @ (W.flip(1)[:, :rank] / sigma[:rank]).float()
    assert deviation(plain) > ORTHONORMALITY_TOLERANCE, "the matrix tests nothing"
    assert deviation(factor(D).U) < 2e-6


def test_float64_product_alone_does_not_mend_the_worst():
    D = ILL_CONDITIONED["merged LoRA of noise above the rank"].double()
    squared, W = torch.linalg.eigh(D.T @ D)
    rank = factor(D).rank
    plain = D @ (W.flip(1)[:, :rank] / squared.flip(0)[:rank].sqrt())
    assert deviation(plain) > ORTHONORMALITY_TOLERANCE, "the matrix tests nothing"
    assert deviation(factor(D).U) < 1e-12


@pytest.mark.parametrize("shape", [(29, 6), (4099, 33), (9, 7), (9, 1), (5, 0)])
def test_orthonormalised_columns_keep_every_prefix_span_and_their_sense(shape):
    """Q of QR with a positive diagonal, on either side of twice as tall as wide."""
    X = gaussian(*shape)
    Q = orthonormalised(X.clone())
    assert deviation(Q) < 1e-5
    R = Q.T @ X
    torch.testing.assert_close(R.tril(-1), torch.zeros_like(R), rtol=0, atol=1e-5)
    assert (R.diagonal() > 0).all()
    torch.testing.assert_close(Q @ R, X, rtol=0, atol=1e-5)


@pytest.mark.parametrize("k", [0, 1, 6])
def test_deviation_is_the_largest_entry_of_any_row(k):
    U = gaussian(4099, k, dtype=torch.float64) / 64
    # In the last row, which is summed apart from the first.
    U[-1] = 1
    assert measured_deviation(U) == pytest.approx(deviation(U))


@pytest.mark.parametrize(("precision", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_gram_matrix_is_filled_below_its_diagonal(precision, close):
    """Of several blocks of rows and several of columns, neither of them whole."""
    A = gaussian(611, 4205)
    dense = (A.double() @ A.double().T).tril()
    found = gram(A, precision=precision)
    assert found.dtype == torch.float64
    assert float((found.tril() - dense).abs().max()) < close * float(dense.abs().max())


@pytest.mark.parametrize(
    ("device", "capability", "expected"),
    [
        ("cpu", None, "float64"),
        ("cuda:0", (8, 0), "float64"),
        ("cuda:1", (9, 0), "float64"),
        ("cuda:0", (7, 5), "float32"),
        ("cuda:0", (8, 6), "float32"),
        ("cuda:0", (8, 9), "float32"),
        ("cuda:0", (12, 0), "float32"),
    ],
)
def test_precision_is_float32_where_float64_is_slow(monkeypatch, caplog, device, capability, expected):
    asked = []
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: asked.append(str(device)) or capability)
    caplog.set_level("INFO")
    precision_on.cache_clear()
    assert precision_on(torch.device(device)) == precision_on(torch.device(device)) == expected
    assert asked == ([device] if capability else [])
    (said,) = caplog.messages
    assert said.startswith(f"factors: {expected} (")
    assert not capability or "compute capability {}.{})".format(*capability) in said


def of_energies(*energies):
    return Factors(torch.eye(len(energies)), torch.tensor(energies).sqrt())


@given(percent=st.integers(1, 100))
def test_modes_of_equal_energy_are_counted_exactly(percent):
    assert of_energies(*[1.0] * 100).modes(percent / 100) == percent


def test_modes_reach_the_energy_and_stop_at_the_rank():
    assert of_energies(4.0, 3.0, 2.0, 1.0).modes(0.7) == 2
    assert of_energies(4.0, 3.0).modes(0.01) == 1
    assert of_energies(4.0, 3.0, 2.0).modes(1.0) == 3
    assert Factors(torch.zeros(3, 0), torch.zeros(0)).modes(0.5) == 0


def test_the_leading_subspace_is_that_of_the_dense_svd():
    D, k = gaussian(17, 11), 4
    dense = svd(D)[0][:, :k]
    torch.testing.assert_close(
        factor(D).leading(k).project(D).double(), dense @ dense.T @ D.double(), rtol=0, atol=1e-5
    )
