import pytest
import torch
from safetensors.torch import save_file

from safety_spaces.errors import UserError
from safety_spaces.geometry import cached_factor, factor

NAME = "model.layers.0.mlp.up_proj.weight"


def reference_U():
    return factor(torch.randn(13, 5, generator=torch.Generator().manual_seed(0))).U


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


def test_file_holds_no_more_than_the_factor(tmp_path):
    cached_factor(tmp_path, NAME, reference_U)
    assert (tmp_path / f"{NAME}.safetensors").stat().st_size < 13 * 5 * 4 + 300


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


@pytest.mark.parametrize("at", ["pathlib.Path.replace", "safety_spaces.geometry.factors.save_file"])
def test_full_disk_is_explained(tmp_path, monkeypatch, at):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(at, full)
    with pytest.raises(UserError, match=r"could not write .*No space left on device.* free disk space"):
        cached_factor(tmp_path, NAME, reference_U)
    assert list(tmp_path.iterdir()) == []
