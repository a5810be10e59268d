import json
import subprocess
import sys

import pytest
import torch

from tests.pico import ROOT

KEYS = [
    "shapes", "layers", "device", "part", "seconds", "ratio_vs_per_cell_svd", "ratio_to_gemm_floor",
    "max_abs_difference", "peak_rss_bytes",
]  # fmt: skip


def bench(table, *arguments):
    call = [sys.executable, ROOT / "benchmarks" / "geometry.py", "--shapes", "pico", "--table", table, *arguments]
    done = subprocess.run([str(part) for part in call], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_parts_are_measured_once_and_agree_with_float64(tmp_path):
    table = tmp_path / "geometry.csv"
    parts = ["sweep", "mso", "activations-1000"]
    asked = [word for part in parts for word in ("--part", part)]
    rows = bench(table, *asked)
    assert [row["part"] for row in rows] == parts
    for row in rows:
        assert list(row) == KEYS
        assert 0 <= row["max_abs_difference"] <= 1e-5
        assert all(row[key] > 0 for key in KEYS if key.startswith(("seconds", "ratio", "peak")))
    content = table.read_bytes()
    again = bench(table, *asked)
    assert table.read_bytes() == content
    assert [row["seconds"] for row in again] == [pytest.approx(row["seconds"], rel=1e-5) for row in rows]
    assert bench(table, "--part", "mso", "--again")[0]["seconds"] != again[1]["seconds"]
    assert len(table.read_text().splitlines()) == 1 + len(parts)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_its_rows_are_empty_and_say_so(tmp_path):
    table = tmp_path / "geometry.csv"
    (row,) = bench(table, "--device", "cuda", "--part", "sweep")
    assert row["seconds"] is row["max_abs_difference"] is None
    assert "not measured: no CUDA device could be had" in table.read_text()
    bench(table, "--device", "cuda", "--part", "sweep")
    assert len(table.read_text().splitlines()) == 2
