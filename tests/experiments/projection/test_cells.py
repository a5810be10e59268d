"""Keys change with everything that changes a result, and with nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from safety_spaces.command_line import Arguments, parse_arguments
from safety_spaces.errors import UserError
from safety_spaces.experiments.projection import keys as keys_of
from safety_spaces.experiments.projection.cells import Cell, cells
from safety_spaces.experiments.projection.keys import energy_key, scores
from safety_spaces.store import digest
from safety_spaces.study import Existing, Study
from tests.pico import WITH_CONTROLS, copy_run


def command_of(folder: Path, **changes) -> Arguments:
    content = yaml.safe_load((folder / "study.yaml").read_text())
    for section, values in changes.items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    return parse_arguments("", [str(path), "--runs", str(folder / "runs"), "--results", str(folder / "others")])


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory) -> Path:
    return copy_run(finished, tmp_path_factory.mktemp("cells") / "run")


def keys(command: Arguments, seed: int = 3) -> dict[tuple[Cell, str], str]:
    return {(score.cell, score.metric): score.key for score in scores(command.roles, command.texts, seed)}


def test_no_two_results_share_a_key(folder):
    found = keys(command_of(folder))
    assert len(set(found.values())) == len(found) == 100


def test_a_moved_run_keeps_its_keys(folder, tmp_path):
    moved = copy_run(folder, tmp_path / "elsewhere")
    assert keys(command_of(moved)) == keys(command_of(folder))
    assert energy_key(command_of(moved).roles, 3, "useful") == energy_key(command_of(folder).roles, 3, "useful")


def test_what_was_delivered_by_another_measure_is_no_result_of_a_projected_model(folder, monkeypatch):
    """realised_energy was a ratio of norms before it was one of energies; no projected model has a key of then."""
    seen = []
    monkeypatch.setattr(keys_of, "digest", lambda value: digest(seen.append(value) or value))
    command = command_of(folder)
    list(scores(command.roles, command.texts, 3))
    hows = [value["how"] for value in seen if isinstance(value, dict) and "how" in value]
    assert {how.get("realised_energy") for how in hows if how} == {"squared"}
    assert len([how for how in hows if not how]) == 5 * 2


def test_a_label_changes_no_key(folder):
    assert keys(command_of(folder, model="another label")) == keys(command_of(folder))


@pytest.mark.parametrize(
    ("changes", "metrics"),
    [
        ({"projection": {"weights_dtype": "bfloat16"}}, {"utility", "harmfulness"}),
        ({"threads": 2}, {"utility", "harmfulness"}),
        ({"evaluation": {"batch_size": 5}}, {"utility", "harmfulness"}),
        ({"evaluation": {"harmfulness": {"limit": 5, "max_new_tokens": 6}}}, {"harmfulness"}),
        ({"evaluation": {"template": "none"}}, {"harmfulness"}),
        ({"evaluation": {"utility": {"prompts": 5, "max_new_tokens": 6}}}, {"utility"}),
    ],
)
def test_a_setting_of_the_evaluation_changes_the_keys_of_its_metrics_alone(folder, changes, metrics):
    before, after = keys(command_of(folder)), keys(command_of(folder, **changes))
    assert {metric for (_, metric), key in before.items() if after[_, metric] != key} == metrics
    assert all((after[cell, metric] != key) == (metric in metrics) for (cell, metric), key in before.items())


@pytest.mark.parametrize("changes", [{"side": "right"}, {"rounding": "round"}, {"tied": "twice"}, {"vectors": "drop"}])
def test_a_setting_of_the_geometry_changes_projected_models_and_spares_baselines(folder, changes):
    before, after = keys(command_of(folder)), keys(command_of(folder, projection=changes))
    assert all((after[score] != key) != score[0].is_baseline for score, key in before.items())
    changed, plain = command_of(folder, projection=changes), command_of(folder)
    assert energy_key(changed.roles, 3, "useful") != energy_key(plain.roles, 3, "useful")


def own_basis(folder: Path, name: str, content: bytes, **changes) -> Arguments:
    (folder / name).write_bytes(content)
    basis = {"file": str(folder / name), "side": changes.get("side", "left")}
    return command_of(folder, projection={"basis": basis, "bases": ["file", "top_k", "random_k", "random"], **changes})


def test_a_basis_of_ones_own_changes_projected_models_by_its_content_alone(folder):
    def measured(command: Arguments) -> tuple[dict, str]:
        return keys(command), energy_key(command.roles, 3, "useful")

    plain, (after, energy) = measured(command_of(folder)), measured(own_basis(folder, "first", b"one"))
    # Its number of columns decides how many directions each control takes.
    assert all((after[score] != key) != score[0].is_baseline for score, key in plain[0].items())
    assert {cell.draw for cell, _ in after if cell.basis == "file"} == {0}
    assert measured(own_basis(folder, "second", b"one")) == (after, energy)
    other = measured(own_basis(folder, "first", b"two"))
    turned = measured(own_basis(folder, "second", b"one", side="right"))
    for changed, _ in (other, turned):
        assert all((changed[score] != key) != score[0].is_baseline for score, key in after.items())
    assert len({plain[1], energy, other[1], turned[1]}) == 4


def test_a_basis_that_is_not_there_is_named(folder):
    command = own_basis(folder, "gone", b"")
    (folder / "gone").unlink()
    with pytest.raises(UserError, match=r"projection\.basis\.file: expected a file at .*gone, found none; write it"):
        energy_key(command.roles, 3, "useful")


def test_no_score_of_one_seed_is_that_of_another(folder):
    command = command_of(folder)
    assert not {*keys(command, 0).values()} & {*keys(command, 3).values()}


def test_a_base_that_is_given_is_scored_once_for_all_seeds(folder):
    command = command_of(folder)
    given = Existing(path=str(folder / "runs/pico/seed-0/checkpoints/base"))
    study = command.study.model_copy(update={"roles": {**command.study.roles, "base": given}})
    roles, texts = replace(command.roles, study=study), replace(command.texts, study=study)
    first, second = ({score.cell.task: score.key for score in scores(roles, texts, seed)} for seed in (0, 3))
    assert {task for task, key in first.items() if key == second[task]} == {"base"}


def test_the_controls_without_a_subspace_are_of_the_task_that_has_both_outcomes(folder):
    every = [*cells(command_of(folder, **WITH_CONTROLS).study, 3).items()]
    dosed = [(cell, metrics) for cell, metrics in every if cell.basis in ("scaled", "matched")]
    assert {cell.task for cell, _ in dosed} == {"contaminated"}
    assert [cell.dose for cell, _ in dosed if cell.basis == "scaled"] == [0.3, 0.7]
    matched = [(cell.scheme, cell.fraction, cell.draw) for cell, _ in dosed if cell.basis == "matched"]
    assert matched == [(scheme, rho, None) for scheme in ("parallel", "orthogonal") for rho in (0.1, 0.5, 0.9)]
    assert {metrics for _, metrics in dosed} == {("utility", "harmfulness", "utility_margin", "harm_margin")}
    assert not any(cell.is_baseline for cell, _ in dosed)


def test_a_finer_sweep_keeps_the_cells_below_the_new_fraction(folder):
    before, after = keys(command_of(folder)), keys(command_of(folder, projection={"fractions": [0.1, 0.5, 0.7, 0.9]}))
    changed = {cell.fraction for (cell, metric), key in before.items() if after[cell, metric] != key}
    assert changed == {0.9}


def test_every_seed_has_the_cells_of_the_study(folder):
    command = command_of(folder)
    study: Study = command.study
    every = {score.cell for score in scores(command.roles, command.texts, 0)}
    assert {cell.seed for cell in every} == {0}
    projected = [cell for cell in every if not cell.is_baseline]
    assert {cell.fraction for cell in projected} == set(study.projection.fractions)
    assert {(cell.basis, cell.draw) for cell in projected} == {
        ("top_k", 0), ("random_k", 0), ("random_k", 1), ("random", 0), ("random", 1)
    }  # fmt: skip
