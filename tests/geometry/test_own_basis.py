import pytest
import torch
from safetensors.torch import save_file

from safety_spaces.errors import UserError
from safety_spaces.geometry import Bases, Updates, factor, open_basis, tensor_energies
from safety_spaces.geometry.bases import own_columns
from tests.geometry.dense import energy, gaussian
from tests.models.folders import DOWN, EMBEDDING, NORM, QUERY, opened, weights


@pytest.fixture
def checkpoints(tmp_path):
    return {role: opened(tmp_path / role, weights(seed)) for seed, role in enumerate(("base", "reference", "useful"))}


def updates(checkpoints, side="left"):
    return Updates(checkpoints["base"], checkpoints["reference"], {"useful": checkpoints["useful"]}, side=side)


def frame(M, k, seed=0):
    return torch.linalg.qr(gaussian(M, k, seed=seed))[0]


@pytest.fixture
def written(tmp_path):
    def write(tensors):
        path = tmp_path / "U.safetensors"
        save_file({name: values.contiguous() for name, values in tensors.items()}, path)
        return path

    return write


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("side", "height"), [("left", 14), ("right", 10), ("residual", 10)])
def test_columns_are_those_of_the_file_as_high_as_the_projected_side(checkpoints, written, dtype, side, height):
    U, u = frame(height, 4), frame(10, 1)[:, 0]
    basis = open_basis(written({QUERY: U.to(dtype), NORM: u}), updates(checkpoints, side))
    assert torch.equal(own_columns(basis, QUERY, height), U)
    assert torch.equal(own_columns(basis, NORM, 10), u[:, None])
    assert own_columns(basis, QUERY, height).dtype == torch.float32


def test_a_tensor_without_a_matrix_has_no_directions(checkpoints, written):
    basis = open_basis(written({QUERY: frame(14, 4)}), updates(checkpoints))
    assert own_columns(basis, DOWN, 10).shape == (10, 0)


@pytest.mark.parametrize("k", [0, 14])
def test_a_matrix_may_have_no_column_or_as_many_as_rows(checkpoints, written, k):
    basis = open_basis(written({QUERY: frame(14, k)}), updates(checkpoints))
    assert own_columns(basis, QUERY, 14).shape == (14, k)


@pytest.mark.parametrize("columns", [1, 3, 5])
def test_controls_take_as_many_directions_as_the_file_has(checkpoints, written, columns):
    found = updates(checkpoints)
    U = frame(14, columns)
    basis, D = open_basis(written({QUERY: U}), found), found.of("useful", QUERY)
    bases = Bases(QUERY, found.shape(QUERY), factor(found.of("reference", QUERY)).U, own_columns(basis, QUERY, 14))
    how = {"names": ("file", "random_k", "random", "top_k"), "fractions": (0.4, 1.0), "number_of_draws": 2}
    rows = tensor_energies(bases, {"useful": D}, **how)["useful"]
    assert {row.basis for row in rows} == set(how["names"])
    for row in rows:
        assert row.k == {0.4: max(1, int(0.4 * columns)), 1.0: columns}[row.fraction]
        if row.basis == "file":
            assert row.energy == pytest.approx(energy(U, row.k, D), rel=1e-5)


WRONG = {
    "no matrix": ({}, "expected a matrix for one tensor or more, found none; write it with save_file"),
    "integers alone": ({QUERY: torch.ones(14, 2, dtype=torch.int64)}, "expected a matrix for one tensor or more"),
    "unknown name": (
        {"layers.0.q": frame(14, 2), QUERY: frame(14, 2)},
        f"expected names of tensors of .*reference, layers.0.q is none; names look like {EMBEDDING}",
    ),
    "other height": ({QUERY: frame(10, 2)}, rf"expected {QUERY} to have 14 rows and .*, got \(10, 2\); correct"),
    "wider than high": ({QUERY: frame(14, 14).repeat(1, 2)}, r"at most as many columns, got \(14, 28\)"),
    "three axes": ({QUERY: torch.ones(14, 2, 2)}, r"got \(14, 2, 2\)"),
    "a number": ({QUERY: torch.tensor(1.0)}, r"14 rows and .*, got \(\); correct the matrix"),
    "vector for a matrix": ({QUERY: frame(10, 1)[:, 0]}, r"got \(10,\)"),
}


@pytest.mark.parametrize(("tensors", "message"), WRONG.values(), ids=WRONG)
def test_a_file_that_does_not_fit_is_explained(checkpoints, written, tensors, message):
    with pytest.raises(UserError, match=message) as caught:
        open_basis(written(tensors), updates(checkpoints))
    assert str(caught.value).startswith(f"{written({})}: ")
    assert "\n" not in str(caught.value)


def test_a_matrix_of_the_other_side_is_explained(checkpoints, written):
    path = written({QUERY: frame(14, 4)})
    open_basis(path, updates(checkpoints))
    with pytest.raises(UserError, match=r"to have 10 rows .*, got \(14, 4\); correct the matrix or .*side"):
        open_basis(path, updates(checkpoints, "right"))


@pytest.mark.parametrize(
    ("scale", "accepted"), [(1 + 2e-5, True), (1 + 2e-4, False), (0.5, False)], ids=["rounding", "near", "far"]
)
def test_columns_that_are_not_orthonormal_are_explained(checkpoints, written, scale, accepted):
    basis = open_basis(written({QUERY: scale * frame(14, 4)}), updates(checkpoints))
    if accepted:
        assert own_columns(basis, QUERY, 14).shape == (14, 4)
        return
    message = f"expected orthonormal columns of {QUERY}, U'U differs from I by .*; write the Q of torch.linalg.qr"
    with pytest.raises(UserError, match=message):
        own_columns(basis, QUERY, 14)


def test_columns_that_are_not_finite_are_explained(checkpoints, written):
    U = frame(14, 4)
    U[3, 2] = float("nan")
    with pytest.raises(UserError, match=rf"U.safetensors: expected finite .*tensor {QUERY} holds NaN or infinity"):
        own_columns(open_basis(written({QUERY: U}), updates(checkpoints)), QUERY, 14)


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_an_unreadable_file_is_explained(checkpoints, tmp_path, content):
    path = tmp_path / "U.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"U.safetensors: .*unreadable") as caught:
        open_basis(path, updates(checkpoints))
    # It is a user's own file, alone in a folder that may hold anything.
    assert "delete the folder" not in str(caught.value)
