"""One layer projected alone, against plain code in float64 that knows nothing of the project but its files."""

import collections
import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from safety_spaces.experiments.projection import weights as cell_weights
from safety_spaces.experiments.projection.cells import Cell
from safety_spaces.models.live import LiveWeights
from tests.pico import PICO, copy_run, run_script, write_study

pytestmark = pytest.mark.slow

FRACTIONS = [0.1, 0.5, 1.0]
BASES = {"top_k": 1, "random_k": 2, "random": 2}
"""And the draws of each."""
LAYERS, OTHERS = (0, 1), ("whole", "out")
PER_PLACE = len(FRACTIONS) * sum(BASES.values())
USEFUL, CONTAMINATED = ({"task": task, "scheme": scheme} for task, scheme in
                        (("useful", "parallel"), ("contaminated", "orthogonal")))  # fmt: skip
SCORED = [
    {**USEFUL, "metrics": ["utility"], "layers": [0, 1]},
    {**CONTAMINATED, "metrics": ["harmfulness"], "layers": [1, 0]},
    # Cells that others have: another metric of some single layers, and of the whole model.
    {**USEFUL, "metrics": ["harmfulness"], "layers": [1], "others": ["out"]},
    {**USEFUL, "metrics": ["utility"]},
    {**USEFUL, "metrics": ["harmfulness"]},
]
PROJECTION = {**PICO["projection"], "fractions": FRACTIONS, "scored": SCORED}
ROLES = {**PICO["roles"], "reference": {"training": {"learning_rate": 0.03, "epochs": 4}}}
"""A reference so far from its base that its update has full rank, beyond doubt, in every tensor."""


@dataclass
class Seen:
    """What the sweep did: the weights of every model that was asked, and how often each was made and asked."""

    folder: Path
    weights: dict[Cell, dict[str, torch.Tensor]] = field(default_factory=dict)
    edited: collections.Counter = field(default_factory=collections.Counter)
    asked: collections.Counter = field(default_factory=collections.Counter)

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        edits, write, store = cell_weights.cell_edits, LiveWeights.write, cell_weights.write_answers

        def seen_edits(roles, parts, cell):
            self.edited[cell] += 1
            self._last = cell
            return edits(roles, parts, cell)

        def seen_write(live, given):
            self._live = live._weights
            return write(live, given)

        def seen_store(layout, seed, key, answers, facts):
            self.asked[self._last, facts["metric"]] += 1
            self.weights[self._last] = {name: weight.clone() for name, weight in self._live.items()}
            return store(layout, seed, key, answers, facts)

        patch.setattr(cell_weights, "cell_edits", seen_edits)
        patch.setattr(LiveWeights, "write", seen_write)
        patch.setattr(cell_weights, "write_answers", seen_store)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("layers")
    seen = Seen(folder)
    path = write_study(folder / "study.yaml", seeds=[0], roles=ROLES, projection=PROJECTION)
    with pytest.MonkeyPatch.context() as patch:
        seen.watch(patch)
        for name in ("finetune", "projection"):
            assert run_script(name, path, folder) == 0, name
    return seen


@pytest.fixture(scope="module")
def projection(study: Seen) -> pd.DataFrame:
    return pd.read_csv(study.folder / "results/pico/projection.csv", keep_default_na=False, dtype=str)


@functools.cache
def weights(folder: Path, role: str) -> dict[str, torch.Tensor]:
    runs = folder / "runs/pico"
    path = runs / "seed-0/checkpoints" / role
    return {name: tensor.double() for name, tensor in load_file(path / "model.safetensors").items()}


@functools.cache
def parts(folder: Path, task: str, fraction: float) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By tensor: the task update as a matrix, and its part in the leading directions."""
    base, reference, tuned = (weights(folder, role) for role in ("base", "reference", task))
    found = {}
    for name in base:
        update, D = ((b - a).reshape(len(a), -1) for a, b in
                     ((base[name], reference[name]), (reference[name], tuned[name])))  # fmt: skip
        U = torch.linalg.svd(update, full_matrices=False)[0][:, : max(1, int(fraction * min(D.shape)))]
        found[name] = D, U @ (U.T @ D)
    return found


def test_the_update_of_the_reference_has_full_rank(study):
    """What follows takes as many directions as shapes allow."""
    base, reference = (weights(study.folder, role) for role in ("base", "reference"))
    for name, at in base.items():
        sigma = torch.linalg.svdvals((reference[name] - at).reshape(len(at), -1))
        assert sigma[-1] > 5e-6 * sigma[0], name


def in_layer(name: str, layer: int) -> bool:
    return name.startswith(f"model.layers.{layer}.")


def kept_update(folder: Path, cell: Cell) -> dict[str, torch.Tensor]:
    """What a top_k cell keeps of every tensor's update: of one layer the part, of all others everything or nothing."""
    kept = {}
    for name, (D, part) in parts(folder, cell.task, cell.fraction).items():
        if cell.layer is None or in_layer(name, cell.layer):
            kept[name] = part if cell.scheme == "parallel" else D - part
        else:
            kept[name] = D if cell.others == "whole" else torch.zeros_like(D)
    return kept


def live_update(seen: Seen, cell: Cell) -> dict[str, torch.Tensor]:
    """What the model that was asked had more than the reference."""
    reference, live = weights(seen.folder, "reference"), seen.weights[cell]
    return {name: (live[name].double() - at).reshape(len(at), -1) for name, at in reference.items()}


def share_kept(folder: Path, cell: Cell, kept: dict[str, torch.Tensor]) -> float:
    whole = sum(D.square().sum() for D, _ in parts(folder, cell.task, FRACTIONS[0]).values())
    return float(sum(update.square().sum() for update in kept.values()) / whole)


def single(seen: Seen, **wanted: Any) -> list[Cell]:
    """The cells of single layers that have these values."""
    cells = [cell for cell in seen.weights if cell.layer is not None]
    return [cell for cell in cells if all(getattr(cell, name) == value for name, value in wanted.items())]


def row_of(table: pd.DataFrame, cell: Cell, metric: str) -> "pd.Series[str]":
    layers = "all" if cell.layer is None else str(cell.layer)
    wanted = {"task": cell.task, "scheme": cell.scheme, "basis": cell.basis, "fraction": f"{cell.fraction:g}",
              "layers": layers, "draw": str(cell.draw), "others": cell.others or "", "metric": metric}  # fmt: skip
    for name, value in wanted.items():
        table = table[table[name] == value]
    (number,) = table.index
    return table.loc[number]


def test_every_place_of_every_line_is_a_model(study):
    models = collections.Counter((cell.task, cell.layer, cell.others) for cell in study.weights if cell.basis != "none")
    lines = [("useful", None, None), *((task, layer, others) for task in ("useful", "contaminated")
                                       for layer in LAYERS for others in OTHERS)]  # fmt: skip
    assert models == dict.fromkeys(lines, PER_PLACE)


def test_no_model_is_made_twice_and_no_question_asked_twice(study):
    """Lines that share cells share models: a metric more is a question more to the same weights."""
    assert set(study.edited.values()) == set(study.asked.values()) == {1}
    asked = collections.Counter(
        (cell.task, cell.layer, cell.others, metric) for cell, metric in study.asked if cell.basis != "none"
    )
    places = [*((layer, others) for layer in LAYERS for others in OTHERS), (None, None)]
    assert asked == {
        **{("useful", *place, "utility"): PER_PLACE for place in places},
        **{("contaminated", *place, "harmfulness"): PER_PLACE for place in places[:-1]},
        ("useful", 1, "out", "harmfulness"): PER_PLACE,
        ("useful", None, None, "harmfulness"): PER_PLACE,
    }


def test_the_model_has_the_weights_of_a_dense_svd_in_one_layer_and_the_others_whole_or_out(study):
    cells = single(study, basis="top_k")
    assert len(cells) == 2 * len(LAYERS) * len(OTHERS) * len(FRACTIONS)
    for cell in cells:
        live = live_update(study, cell)
        for name, kept in kept_update(study.folder, cell).items():
            torch.testing.assert_close(live[name], kept, rtol=0, atol=2e-6, msg=f"{name}: {cell}")


def test_tensors_outside_the_layers_are_others(study):
    """The embedding and the last norm have no layer; they move with the other layers."""
    outside = ("model.embed_tokens.weight", "model.norm.weight")
    for cell in single(study):
        live = study.weights[cell]
        expected = weights(study.folder, cell.task if cell.others == "whole" else "reference")
        for name in (*outside, "model.layers.0.input_layernorm.weight", "model.layers.1.input_layernorm.weight"):
            if not in_layer(name, cell.layer):
                torch.testing.assert_close(live[name].double(), expected[name], rtol=0, atol=2e-6)
        tied = live["lm_head.weight"]
        assert torch.equal(tied, live["model.embed_tokens.weight"])


@pytest.mark.parametrize("basis", ["random_k", "random"])
def test_a_control_projects_its_layer_orthogonally_onto_as_many_directions(study, basis):
    """Whatever was drawn, X = PD for a projector P of rank k: X'(D - X) = 0, and X has at most rank k."""
    cells = single(study, basis=basis)
    assert len(cells) == 2 * len(LAYERS) * len(OTHERS) * len(FRACTIONS) * 2
    for cell in cells:
        live, full = live_update(study, cell), parts(study.folder, cell.task, cell.fraction)
        for name, (D, _) in full.items():
            if not in_layer(name, cell.layer):
                continue
            X = live[name] if cell.scheme == "parallel" else D - live[name]
            scale = float(D.square().sum())
            assert float((X.T @ (D - X)).abs().max()) < 2e-4 * scale, (name, cell)
            k = max(1, int(cell.fraction * min(D.shape)))
            values = torch.linalg.svdvals(X)
            assert float(values[k:].square().sum()) < 1e-5 * scale, (name, cell)


def test_draws_bases_and_layers_are_other_models(study):
    for fraction in FRACTIONS[:-1]:
        cells = single(study, task="useful", fraction=fraction, others="out")
        vectors = [torch.cat([part.flatten() for part in live_update(study, cell).values()]) for cell in cells]
        for number, first in enumerate(vectors):
            for second in vectors[number + 1 :]:
                assert float((first - second).norm()) > 1e-3 * float(first.norm())


def test_at_full_rank_whole_and_parallel_is_the_task_and_out_and_orthogonal_is_the_reference(study):
    """Of tensors with no more rows than columns, all directions of the update span the whole space."""
    for layer in LAYERS:
        (task,) = single(study, task="useful", basis="top_k", fraction=1.0, layer=layer, others="whole")
        (reference,) = single(study, task="contaminated", basis="top_k", fraction=1.0, layer=layer, others="out")
        spanned = 0
        for name, tuned in weights(study.folder, "useful").items():
            wide = tuned.ndim == 2 and len(tuned) <= tuned.shape[1]
            if wide or not in_layer(name, layer):
                torch.testing.assert_close(study.weights[task][name].double(), tuned, rtol=0, atol=2e-6)
                at = weights(study.folder, "reference")[name]
                torch.testing.assert_close(study.weights[reference][name].double(), at, rtol=0, atol=2e-6)
                spanned += in_layer(name, layer)
        assert spanned == 5  # q, k, v, o and down


def test_the_energy_kept_is_over_all_tensors(study, projection):
    for cell in study.weights:
        if cell.basis == "none":
            continue
        metric = "utility" if cell.task == "useful" else "harmfulness"
        found = float(row_of(projection, cell, metric).energy_kept)
        assert found == pytest.approx(share_kept(study.folder, cell, live_update(study, cell)), abs=2e-4), cell
        if cell.basis == "top_k":
            dense = share_kept(study.folder, cell, kept_update(study.folder, cell))
            assert found == pytest.approx(dense, abs=2e-5), cell


def test_the_update_that_was_delivered_is_the_one_that_was_meant(projection):
    rows = projection[projection.layers != "all"]
    assert len(rows) == 9 * PER_PLACE
    np.testing.assert_allclose(rows.realised_energy.astype(float), 1, atol=1e-3)
    np.testing.assert_allclose(rows.realised_cosine.astype(float), 1, atol=1e-3)


def test_totals_of_a_layer_are_those_of_a_dense_svd(study):
    energy = pd.read_csv(study.folder / "results/pico/energy.csv")
    totals = energy[energy.tensor.str.startswith("layer:")]
    assert set(totals.tensor) == {f"layer:{layer}" for layer in LAYERS}
    assert len(totals) == 3 * len(LAYERS) * PER_PLACE
    assert (totals.layer == totals.tensor.str.removeprefix("layer:").astype(int)).all()
    assert totals.kind.isna().all()
    for row in totals.itertuples():
        found = {name: pair for name, pair in parts(study.folder, row.task, row.fraction).items()
                 if in_layer(name, int(row.layer))}  # fmt: skip
        assert len(found) == 9
        squares = {name: float(D.square().sum()) for name, (D, _) in found.items()}
        assert row.update_norm == pytest.approx(sum(squares.values()) ** 0.5, rel=1e-5)
        ks = {name: max(1, int(row.fraction * min(D.shape))) for name, (D, _) in found.items()}
        assert row.k == sum(ks.values())
        if row.basis == "top_k":
            inside = sum(float(part.square().sum()) for _, part in found.values())
            assert row.energy_kept == pytest.approx(inside / sum(squares.values()), abs=1e-5)
        if row.basis == "random":
            expected = sum(ks[name] / len(D) * squares[name] for name, (D, _) in found.items())
            assert row.energy_expected == pytest.approx(expected / sum(squares.values()), abs=1e-5)


def test_rows_say_which_layer_and_what_became_of_the_others(projection):
    assert list(projection.columns[-3:]) == ["others", "shots", "dose"]
    assert set(projection.layers) == {"all", "0", "1"}
    assert set(projection[projection.layers == "all"].others) == {""}
    assert set(projection[projection.layers != "all"].others) == set(OTHERS)
    assert set(projection[projection.metric == "utility"].shots) == {"0"}
    assert set(projection[projection.metric == "harmfulness"].shots) == {""}
    axes = ["task", "scheme", "basis", "fraction", "layers", "others", "draw", "metric"]
    assert not projection.duplicated(axes).any()
    assert len(projection) == 5 * 2 + 11 * PER_PLACE


@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_cell_answers_like_a_checkpoint_with_its_weights(study, tmp_path, layer, others):
    """A merged checkpoint is written, loaded and asked prompt by prompt: the responses are the same, word for word."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (cell,) = single(study, task="contaminated", basis="top_k", fraction=0.5, layer=layer, others=others)
    folder = study.folder / "runs/pico/seed-0/checkpoints/reference"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    state, reference = model.state_dict(), weights(study.folder, "reference")
    for name, kept in kept_update(study.folder, cell).items():
        state[name].copy_(reference[name] + kept.reshape(reference[name].shape))
    model.save_pretrained(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    answers = stored_answers(study.folder, cell)
    assert len(answers) == 7
    for answer in answers:
        prompt = tokenizer(f"Question: {answer['prompt']}\nAnswer:", return_tensors="pt")
        output = merged.generate(**prompt, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        text = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text == answer["response"]


def stored_answers(folder: Path, cell: Cell) -> list[dict[str, str]]:
    """The responses of a cell, found by what the file beside them says of it."""
    wanted = {"metric": "harmfulness", "task": cell.task, "layer": cell.layer, "others": cell.others,
              "basis": cell.basis, "fraction": cell.fraction}  # fmt: skip
    runs = folder / "runs/pico/seed-0"
    facts = {path.stem: json.loads(path.read_text()) for path in (runs / "cells").glob("*.json")}
    (key,) = (key for key, found in facts.items()
              if "scores" not in found and wanted.items() <= found.items())  # fmt: skip
    return [json.loads(line) for line in (runs / f"responses/{key}.jsonl").read_text().splitlines()]


@pytest.fixture
def run(study, tmp_path) -> Seen:
    """A copy of the finished study, watched anew."""
    return Seen(copy_run(study.folder, tmp_path / "run"))


def changed(run: Seen, scored: dict[str, Any]) -> Path:
    """Write the study with another third line."""
    settings = {**PROJECTION, "scored": [*SCORED[:2], scored, *SCORED[3:]]}
    return write_study(run.folder / "study.yaml", seeds=[0], roles=ROLES, projection=settings)


def test_another_line_on_models_that_were_asked_asks_them_its_own_questions_alone(run, monkeypatch):
    path = changed(run, {**USEFUL, "metrics": ["harmfulness"], "layers": [1, 0]})
    run.watch(monkeypatch)
    assert run_script("projection", path, run.folder) == 0
    assert set(run.edited.values()) == {1}
    assert set(run.asked.values()) == {1}
    places = [(0, "whole"), (1, "whole"), (0, "out")]
    assert {(cell.layer, cell.others, metric) for cell, metric in run.asked} == {
        (*place, "harmfulness") for place in places
    }
    assert len(run.asked) == len(places) * PER_PLACE


@pytest.mark.parametrize("flags", [[], ["--geometry-only"]])
def test_a_layer_that_the_model_does_not_have_is_named(run, capsys, flags):
    for path in (run.folder / "runs/pico/seed-0/cells").glob("*.json"):
        path.unlink()
    path = changed(run, {**USEFUL, "metrics": ["harmfulness"], "layers": [1, 7]})
    assert run_script("projection", path, run.folder, *flags) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"error: {path} extending ")
    assert ": projection.scored: expected layers from 0 to 1, got 7; correct layers" in error


@pytest.mark.parametrize(("vectors", "side"), [("keep", "left"), ("drop", "residual")])
def test_schemes_of_a_layer_add_to_the_share_of_what_is_projected(run, vectors, side):
    """Under every policy for vectors: in both schemes together a layer keeps its share once, the others twice."""
    lines = [{"task": "useful", "scheme": scheme, "metrics": ["utility"], "layers": [1]}
             for scheme in ("parallel", "orthogonal")]  # fmt: skip
    settings = {
        **PROJECTION,
        "fractions": [0.5],
        "bases": ["top_k", "random"],
        "score_draws": 1,
        "vectors": vectors,
        "side": side,
        "scored": lines,
    }
    path = write_study(run.folder / "study.yaml", seeds=[0], roles=ROLES, projection=settings)
    assert run_script("projection", path, run.folder) == 0
    table = pd.read_csv(run.folder / "results/pico/projection.csv")
    energy = pd.read_csv(run.folder / "results/pico/energy.csv")
    energy = energy[(energy.task == "useful") & (energy.draw == 0) & (energy.basis == "top_k")]
    norms = energy.set_index("tensor").update_norm
    share = (norms["layer:1"] / norms["all"]) ** 2
    sums = table[(table.layers == "1") & (table.basis == "top_k")].groupby("others").energy_kept.sum()
    assert sums["out"] == pytest.approx(share, abs=1e-4)
    assert sums["whole"] == pytest.approx(2 - share, abs=1e-4)
