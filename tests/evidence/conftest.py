"""Synthetic tables with known answers: every number is a formula of its cell, so tests can recompute it."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from safety_spaces.evidence.grid import Grid, SingleLayers
from safety_spaces.evidence.tables import ACTIVATION_SPACES, ENERGY, PROJECTION, UPDATE_SPACES, Tables, read_tables
from safety_spaces.record import record_stage, write_table
from safety_spaces.study import SingleToken, TokenWindow

LAYERS = 10  # percentiles 0.7 and 0.85: layers 7 and 8
STATES = LAYERS + 1  # window int(0.65 * 11) = 7 up to int(0.90 * 11) = 9: states 7 and 8
SINGLE_LAYERS = (0, 3, 9)
HALF_WIDTH = {"utility": 0.02, "harmfulness": 0.1, "general_ability": 0.02, "over_refusal": 0.01}
LEVELS = {
    "utility": {"base": 0.10, "reference": 0.20, "useful": 0.60, "harmful": 0.22, "contaminated": 0.50},
    "harmfulness": {"base": 4.5, "reference": 1.5, "useful": 1.6, "harmful": 4.0, "contaminated": 3.5},
    "general_ability": {"base": 0.55, "reference": 0.60, "useful": 0.61, "harmful": 0.59, "contaminated": 0.62},
    "over_refusal": {"base": 0.01, "reference": 0.05, "useful": 0.04, "harmful": 0.03, "contaminated": 0.02},
}
JUDGES = {"harmfulness": "rubric", "over_refusal": "keywords"}
WINDOWS = (
    TokenWindow(of="prompt", stop=8, combine="stacked"),
    TokenWindow(of="generated", start=2, stop=4, combine="averaged"),
)
PAIRS = {
    "useful-refusal": 0.6,
    "useful-harmful_1": 0.4,
    "useful-harmful_2": 0.3,
    "refusal-harmful_1": 0.25,
    "refusal-harmful_2": 0.2,
    "harmful_1-harmful_2": 0.35,
}
POWER = {"top_k": 0.5, "random_k": 0.8, "random": 1.0}  # how a basis turns a fraction into behaviour

GRID = Grid(
    model="llama",
    tasks=("useful", "harmful", "contaminated"),
    reference_kind="aligned",
    seeds=(0, 1, 4),
    claim="top_k",
    bases=("top_k", "random_k", "random"),
    fractions=(0.01, 0.25, 0.5, 0.75, 0.99),
    energy_draws=3,
    score_draws=2,
    scored=(
        ("useful", "parallel", "utility"),
        ("harmful", "parallel", "harmfulness"),
        ("contaminated", "parallel", "utility"),
        ("contaminated", "parallel", "harmfulness"),
        ("contaminated", "orthogonal", "utility"),
        ("contaminated", "orthogonal", "harmfulness"),
    ),
    single_layers=(),
    update_pairs=("useful-harmful", "useful-reference", "harmful-reference"),
    update_etas=(0.01, 0.3, 0.6, 0.99),
    percentiles=(0.7, 0.85),
    positions=(SingleToken.last_prompt_token,),
    checkpoints=("reference", "useful", "contaminated"),
    activation_pairs=("useful-harmful_1", "useful-harmful_2", "harmful_1-harmful_2"),
    activation_etas=(0.1, 0.5, 0.9),
    window=(0.65, 0.90),
)
APPENDICES = replace(
    GRID,
    scored=(
        ("useful", "parallel", "general_ability"),
        ("harmful", "parallel", "over_refusal"),
        ("contaminated", "orthogonal", "general_ability"),
        ("contaminated", "orthogonal", "over_refusal"),
    ),
    single_layers=tuple(
        SingleLayers(*line, SINGLE_LAYERS, ("whole", "out"))
        for line in (
            ("useful", "parallel", "utility"),
            ("harmful", "parallel", "harmfulness"),
            ("contaminated", "orthogonal", "utility"),
            ("contaminated", "orthogonal", "harmfulness"),
        )
    ),
    update_pairs=(),
    update_etas=(),
    percentiles=(),
    positions=(SingleToken.last_prompt_token, SingleToken.last_generated_token, *WINDOWS),
    activation_pairs=tuple(PAIRS),
)
"""A study that leaves to another what GRID has, and has every appendix that takes settings of its own."""


def draws_of(basis: str, random: int) -> range:
    return range(1 if basis == "top_k" else random)


def score(line: tuple[str, str, str], basis: str, fraction: float, seed: int, draw: int) -> float:
    task, scheme, metric = line
    low, high = LEVELS[metric]["reference"], LEVELS[metric][task]
    share = fraction ** POWER[basis]
    kept = share if scheme == "parallel" else 1 - share
    return low + (high - low) * kept + 0.001 * seed - 0.002 * draw


def single_score(value: float, line: tuple[str, str, str], layer: int, others: str) -> float:
    """What a layer has of the whole: 0.10 to 0.19 of what all layers together move."""
    task, _, metric = line
    part = 0.1 + 0.01 * layer
    start = LEVELS[metric][task if others == "whole" else "reference"]
    return start + part * (value - start)


def projection_rows() -> list[dict]:
    empty = dict.fromkeys(PROJECTION)
    fixed = {"study": "tiny", "model": "llama", "reference_kind": "aligned", "precision": "fp32", "n": 128}
    rows = []

    def common(metric: str) -> dict:
        shots = {"utility": 1, "general_ability": 5}.get(metric)
        return {**empty, **fixed, "metric": metric, "judge": JUDGES.get(metric), "shots": shots, "layers": "all"}

    for metric, levels in LEVELS.items():
        for checkpoint, level in levels.items():
            for seed in GRID.seeds if checkpoint != "base" else (None,):
                value = level + 0.001 * (seed or 0)
                rows.append({**common(metric), "task": checkpoint, "scheme": "none", "basis": "none"})
                rows[-1] |= {"seed": seed, "value": value} | bounds(metric, value)
    lines = [(line, "all", None) for line in (*GRID.scored, *APPENDICES.scored)]
    for single in APPENDICES.single_layers:
        line = (single.task, single.scheme, single.metric)
        lines += [(line, layer, others) for layer in single.layers for others in single.others]
    for line, layer, others in lines:
        for basis in GRID.bases:
            for fraction in GRID.fractions:
                for seed in GRID.seeds:
                    for draw in draws_of(basis, GRID.score_draws):
                        value = score(line, basis, fraction, seed, draw)
                        if others is not None:
                            value = single_score(value, line, layer, others)
                        rows.append({**common(line[2]), "task": line[0], "scheme": line[1], "layers": layer})
                        rows[-1] |= {"basis": basis, "fraction": fraction, "seed": seed, "draw": draw}
                        rows[-1] |= {"others": others, "replicate": 0, "value": value} | bounds(line[2], value)
    return rows


def bounds(metric: str, value: float) -> dict[str, float]:
    return {"ci_low": value - HALF_WIDTH[metric], "ci_high": value + 2 * HALF_WIDTH[metric]}


def energy_kept(basis: str, fraction: float, seed: int, draw: int) -> float:
    return min(1.0, fraction * (1.02 if basis == "top_k" else 1.0) + 0.001 * seed - 0.0005 * draw)


def energy_rows() -> list[dict]:
    rows = []
    for task in ("useful", "harmful", "contaminated"):
        for basis in GRID.bases:
            for fraction in GRID.fractions:
                for seed in GRID.seeds:
                    for draw in draws_of(basis, GRID.energy_draws):
                        layers = {f"layer:{layer}": 0.1 * (1 + layer) for layer in SINGLE_LAYERS}
                        for tensor in ("all", "all_but_embeddings", "layers.0.q_proj", *layers):
                            row = dict.fromkeys(ENERGY) | {"study": "tiny", "task": task, "basis": basis}
                            row |= {"fraction": fraction, "seed": seed, "draw": draw, "tensor": tensor}
                            kept = energy_kept(basis, fraction, seed, draw)
                            row |= {"energy_kept": kept * layers.get(tensor, 1.0 if tensor == "all" else 0.0)}
                            row |= {"energy_expected": None if basis == "top_k" else 0.99 * fraction}
                            rows.append(row)
    return rows


def update_mso(pair: str, layer: int, tensor: int, eta: float, seed: int) -> float:
    strength = {"useful-harmful": 0.5, "useful-reference": 0.3, "harmful-reference": 0.2}[pair]
    return strength * eta + 0.01 * layer + 0.02 * tensor + 0.005 * seed


def update_rows() -> list[dict]:
    rows = []
    for pair in GRID.update_pairs:
        for layer in [*range(LAYERS), None]:
            for tensor, kind in enumerate(("q_proj", "down_proj", "norm")):
                for eta in GRID.update_etas:
                    for seed in GRID.seeds:
                        row = dict.fromkeys(UPDATE_SPACES) | {"study": "tiny", "seed": seed, "pair": pair}
                        row |= {"tensor": f"{layer}.{kind}", "layer": layer, "kind": kind, "eta": eta, "dimension": 96}
                        # A vector's overlap of 1 would spoil any mean it slipped into.
                        vector = kind == "norm"
                        row |= {"mso": 1.0 if vector else update_mso(pair, layer or 0, tensor, eta, seed)}
                        row |= {
                            "mso_chance": 0.1 * eta + 0.02 * tensor,
                            "cosine": 0.9 if vector else -0.1 + 0.2 * tensor,
                        }
                        rows.append(row)
    return rows


def activation_mso(checkpoint: str, pair: str, layer: int, centred: bool, eta: float, seed: int) -> float:
    scale = 1 + 0.1 * GRID.checkpoints.index(checkpoint)
    return PAIRS[pair] * eta * scale * (0.5 if centred else 1) + 0.02 * layer + 0.004 * seed


def place_of(position: object) -> dict:
    if not isinstance(position, TokenWindow):
        return {"position": position}
    window = {"window_of": position.of, "window_start": position.start, "window_stop": position.stop}
    return {"position": "early_window", **window, "window_combine": position.combine}


def activation_rows() -> list[dict]:
    rows = []
    cells = product(
        enumerate(APPENDICES.positions), GRID.checkpoints, PAIRS, range(STATES), (False, True), GRID.activation_etas
    )
    for (number, position), checkpoint, pair, layer, centred, eta in cells:
        for seed in GRID.seeds:
            row = dict.fromkeys(ACTIVATION_SPACES) | {"study": "tiny", "seed": seed, "pair": pair}
            row |= {"checkpoint": checkpoint, "layer": layer, "depth": layer / LAYERS, **place_of(position)}
            row |= {"centred": centred, "eta": eta, "dimension": 96}
            # Positions differ, so that a figure that mixes them shows other numbers.
            row |= {"mso": activation_mso(checkpoint, pair, layer, centred, eta, seed) * (1 + 0.1 * number)}
            row |= {"mso_chance": 0.05 * eta + 0.001 * layer}
            rows.append(row)
    return rows


FACTORIES = {
    "projection": (PROJECTION, projection_rows),
    "energy": (ENERGY, energy_rows),
    "update_spaces": (UPDATE_SPACES, update_rows),
    "activation_spaces": (ACTIVATION_SPACES, activation_rows),
}


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder as the experiments leave it; not to be changed."""
    folder = tmp_path_factory.mktemp("results") / "tiny"
    for name, (columns, rows) in FACTORIES.items():
        write_table(folder / f"{name}.csv", columns, rows())
    facts = {"versions": {"torch": "2.13.0"}, "device": "cpu", "threads": 2}
    record_stage(folder, "projection", seconds=30.4, peak_memory_bytes=512 * 2**20, sources="0" * 16, **facts)
    return folder


@pytest.fixture(scope="session")
def tables(written: Path) -> Tables:
    return read_tables(written)


@pytest.fixture
def grid() -> Grid:
    return GRID


@pytest.fixture
def appendices() -> Grid:
    return APPENDICES


@pytest.fixture
def claimed(tables: Tables, grid: Grid) -> tuple[Tables, Grid]:
    """The tables and the grid of a study whose claim is a user's own file; it keeps and scores what top_k did."""
    renamed = {name: getattr(tables, name).replace({"basis": {"top_k": "file"}}) for name in ("projection", "energy")}
    return replace(tables, **renamed), replace(grid, claim="file", bases=("file", "random_k", "random"))


@pytest.fixture
def shifted(tables: Tables):
    """Tables in which a column of some rows is moved: shifted("projection", amount, value=..., **where)."""

    def shift(name: str, column: str, amount: float, **where: object) -> Tables:
        table: pd.DataFrame = getattr(tables, name).copy()
        chosen = np.ones(len(table), dtype=bool)
        for key, wanted in where.items():
            chosen &= (table[key] == wanted).fillna(False).to_numpy(dtype=bool)
        assert chosen.any()
        table.loc[chosen, column] += amount
        return replace(tables, **{name: table})

    return shift
