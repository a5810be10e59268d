import pytest
import torch
from safetensors.torch import save_file

from safety_spaces.errors import UserError
from safety_spaces.geometry import Bases, factor
from safety_spaces.geometry.factor_cache import cached_factor
from tests.geometry.dense import gaussian
from tests.models.folders import is_mapped

NAME = "model.layers.0.mlp.up_proj.weight"


def reference_U():
    return factor(gaussian(13, 5)).U


def never():
    raise AssertionError("computed again")


def test_second_call_reads_the_same_bytes_in_the_same_layout(tmp_path):
    folder = tmp_path / "factors"
    first = cached_factor(folder, NAME, reference_U)
    second = cached_factor(folder, NAME, never)
    assert torch.equal(first, reference_U())
    assert torch.equal(first, second)
    # The layout decides the order of a product's sums: it must not tell a resumed run from a fresh one.
    assert first.stride() == second.stride()
    assert second[:, :3].T.is_contiguous()
    assert [path.name for path in folder.iterdir()] == [f"{NAME}.safetensors"]


def test_a_kept_factor_is_mapped_and_serves_a_basis(tmp_path):
    """A cell of k directions reads k columns of the file, not the file."""
    path = tmp_path / f"{NAME}.safetensors"
    cached_factor(tmp_path, NAME, reference_U)
    assert not is_mapped(path)
    U = cached_factor(tmp_path, NAME, never)
    assert is_mapped(path)
    for basis in ("top_k", "random_k"):
        kept, fresh = (Bases(NAME, (13, 5), frame).subspace(basis, k=3) for frame in (U, reference_U()))
        assert torch.equal(kept.directions(1, 3), fresh.directions(1, 3))


def test_a_mapped_factor_outlives_its_file(tmp_path):
    cached_factor(tmp_path, NAME, reference_U)
    U = cached_factor(tmp_path, NAME, never)
    (tmp_path / f"{NAME}.safetensors").unlink()
    cached_factor(tmp_path, NAME, lambda: gaussian(13, 5, seed=1))
    assert torch.equal(U, reference_U())


def test_another_folder_or_name_is_another_factor(tmp_path):
    cached_factor(tmp_path / "a", NAME, reference_U)
    for folder, name in (("b", NAME), ("a", "lm_head.weight")):
        assert cached_factor(tmp_path / folder, name, lambda: torch.zeros(7, 0)).shape == (7, 0)


def test_file_holds_no_more_than_the_factor(tmp_path):
    cached_factor(tmp_path, NAME, reference_U)
    assert (tmp_path / f"{NAME}.safetensors").stat().st_size < 13 * 5 * 4 + 300


def test_without_a_folder_nothing_is_kept(tmp_path):
    assert torch.equal(cached_factor(None, NAME, reference_U), reference_U())


def test_rank_zero_is_kept_too(tmp_path):
    for compute in (lambda: torch.zeros(7, 0), never):
        assert cached_factor(tmp_path, NAME, compute).shape == (7, 0)


@pytest.mark.parametrize("length", [0, 9, -4])
def test_truncated_file_is_computed_again(tmp_path, length):
    cached_factor(tmp_path, NAME, reference_U)
    path = tmp_path / f"{NAME}.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    assert torch.equal(cached_factor(tmp_path, NAME, reference_U), reference_U())
    cached_factor(tmp_path, NAME, never)


@pytest.mark.parametrize(
    ("key", "metadata"), [("U_transposed", None), ("U_transposed", {"tensor": "other"}), ("weight", {"tensor": NAME})]
)
def test_foreign_file_is_computed_again(tmp_path, key, metadata):
    save_file({key: torch.ones(5, 13)}, tmp_path / f"{NAME}.safetensors", metadata=metadata)
    assert torch.equal(cached_factor(tmp_path, NAME, reference_U), reference_U())


def test_run_killed_while_writing_leaves_nothing_to_trust(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            cached_factor(tmp_path, NAME, reference_U)
    assert not (tmp_path / f"{NAME}.safetensors").exists()
    assert torch.equal(cached_factor(tmp_path, NAME, reference_U), reference_U())


@pytest.mark.parametrize("at", ["pathlib.Path.replace", "safety_spaces.geometry.factor_cache.save_file"])
def test_full_disk_is_explained(tmp_path, monkeypatch, at):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(at, full)
    with pytest.raises(UserError, match=r"could not write .*No space left on device.* free disk space"):
        cached_factor(tmp_path, NAME, reference_U)
    assert list(tmp_path.iterdir()) == []
