"""The overlap of any two folders against a third, beside plain singular value decompositions."""

import importlib.util
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from safetensors.torch import load_file

from tests.geometry.dense import overlap
from tests.models.models import tiny_model
from tests.pico import ROOT

PATH = ROOT / "scripts/mso.py"


def main(*arguments):
    spec = importlib.util.spec_from_file_location("script_mso", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(["--device", "cpu", *map(str, arguments)])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three models of one architecture, by name, and one of another."""
    root = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second", "third")):
        tiny_model(seed=seed).save_pretrained(root / name)
    tiny_model("llama").save_pretrained(root / "other")
    return root


def test_every_matrix_is_that_of_dense_decompositions(folders, tmp_path, capsys):
    names, table = ("first", "second", "third"), tmp_path / "made/overlap.csv"
    paths = [folders / name for name in names]
    assert main(*paths[:2], "--against", paths[2], "--eta", 0.9, 0.4, "--csv", table) == 0
    first, second, third = (load_file(path / "model.safetensors") for path in paths)
    rows = pd.read_csv(table)
    assert set(rows.tensor) == {name for name in third if third[name].ndim == 2}
    for row in rows.itertuples():
        origin = third[row.tensor].double()
        V, W = first[row.tensor] - origin, second[row.tensor] - origin
        k_first, k_second, mso, chance = overlap(V, W, row.eta)
        assert (row.k_first, row.k_second) == (k_first, k_second)
        assert (row.mso, row.mso_chance) == pytest.approx((mso, chance), rel=1e-4)
        assert row.cosine == pytest.approx(float((V * W).sum() / V.norm() / W.norm()), abs=1e-5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["tensors", "mso", "0.4", "chance", "0.4", "mso", "0.9", "chance", "0.9", "cosine"]
    printed = {line.rsplit(maxsplit=5)[0].strip(): [float(cell) for cell in line.split()[-5:]] for line in lines[1:-1]}
    means = {"all": rows, "q_proj": rows[rows.kind == "q_proj"], "layer 1": rows[rows.layer == 1]}
    for name, part in means.items():
        low, high = part[part.eta == 0.4], part[part.eta == 0.9]
        expected = [low.mso, low.mso_chance, high.mso, high.mso_chance, part.cosine]
        assert printed[name] == pytest.approx([column.mean() for column in expected], abs=6e-4)
    assert {"layer 0", "layer 1", "embed_tokens", "lm_head", "down_proj"} < set(printed)
    assert max(map(len, lines[:-1])) <= 100
    assert lines[-1] == f"wrote {table}"


@pytest.mark.parametrize(
    ("first", "second", "third", "message"),
    [
        ("first", "first", "third", "expected three different checkpoints, got"),
        ("first", "third", "third", "expected three different checkpoints, got"),
        ("third", "second", "third", "expected three different checkpoints, got"),
        ("first", "copy", "third", "expected weights that differ from"),
        ("first", "second", "other", "compare checkpoints of one model"),
        ("first", "nowhere/at/all", "third", "nowhere/at/all: expected a checkpoint, found none; correct its path"),
        ("first", "loop", "third", "loop: expected a checkpoint, found a link that leads nowhere; link it again, or"),
        ("first", "bare", "third", "bare: expected a checkpoint, found no config.json; copy it from where"),
        ("first", "second/model.safetensors", "third", "found a file; name a folder: "),
    ],
)
def test_what_cannot_be_compared_is_one_line(folders, capsys, first, second, third, message):
    if not (folders / "copy").exists():
        shutil.copytree(folders / "first", folders / "copy")
        shutil.copytree(folders / "second", folders / "bare", ignore=shutil.ignore_patterns("config.json"))
        (folders / "loop").symlink_to("loop")
    assert main(folders / first, folders / second, "--against", folders / third) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert message in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--eta", "0"), "--eta 0: expected energy levels above 0 and up to 1"),
        (("--eta", "0.5", "90"), "--eta 90: expected energy levels above 0 and up to 1"),
        (("--csv", "."), "--csv .: expected the path of a file, got a folder"),
        (("--csv", f"{PATH}/a.csv"), f"--csv {PATH}/a.csv: expected a folder that can be written, got {PATH} (Not a"),
        (("--csv", "a/model.safetensors"), "--csv a/model.safetensors: expected the path of a table, got that of wei"),
        (("--device", "meta"), "--device meta: expected cpu, cuda or a device such as cuda:1; correct it"),
    ],
)
def test_a_wrong_option_is_said_before_a_model_is_read(flags, message, capsys):
    assert main("nowhere", "elsewhere", "--against", "somewhere", *flags) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_the_command_as_a_user_types_it(folders):
    done = subprocess.run(
        [sys.executable, str(PATH), "first", "second", "--against", "third", "--device", "cpu"],
        cwd=folders, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split()[:3] == ["tensors", "mso", "0.5"]
