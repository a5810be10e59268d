"""One rule for all claims: what a made-up sweep does is what its verdicts say, and premises come first."""

import pandas as pd
import pytest

from safety_spaces.evidence.claims import CLAIMS, gather, verdict_rows
from safety_spaces.evidence.premises import measure_premises
from safety_spaces.evidence.tables import PREMISES, VERDICTS, Tables
from tests.evidence.swept import swept_scores, swept_study

NO_TABLES = Tables(None, None, None, None)


def verdicts(study, scores, tables=NO_TABLES):
    rows = [*verdict_rows(gather(study, tables, scores))]
    assert all(set(row) == set(VERDICTS) for row in rows)
    return {(row["id"], row["task"]): row for row in rows}


@pytest.mark.parametrize(
    ("gain", "word", "paper"),
    [(0.19, "separable", "disagrees"), (0.1, "selective", "disagrees"), (-0.1, "worse", "disagrees"),
     (0.0, "equivalent", "agrees")],
)  # fmt: skip
def test_a_claim_that_keeps_more_utility_than_its_dose_is_found(tmp_path, gain, word, paper):
    study = swept_study(tmp_path)
    found = verdicts(study, swept_scores(study, gain=gain))
    assert set(found) == {("weights-parallel", "contaminated"), ("weights-orthogonal", "contaminated")}
    row = found["weights-orthogonal", "contaminated"]
    assert (row["verdict"], row["paper"], row["about"]) == (word, paper, "this recipe")
    assert row["effect"] == pytest.approx(gain, abs=0.01)
    assert row["secondary"] == pytest.approx(gain, abs=0.01)
    assert (row["seeds"], row["prompts"], row["clusters"], row["margin"]) == (5, 24, 12, 0.15)
    assert (row["basis"], row["control"]) == ("top_k", "matched")


def test_without_a_gap_there_is_nothing_to_separate(tmp_path):
    study = swept_study(tmp_path)
    scores = swept_scores(study, gain=0.3)
    # A fine-tuning that left utility where it was: the contaminated task has the scores of the reference.
    flat = scores.metric.eq("utility") & scores.task.eq("contaminated") & scores.basis.eq("none")
    keys = ["seed", "prompt"]
    reference = scores[scores.task.eq("reference") & scores.metric.eq("utility")].set_index(keys).value
    scores.loc[flat, "value"] = reference.reindex(pd.MultiIndex.from_frame(scores.loc[flat, keys])).to_numpy()
    row = verdicts(study, scores)["weights-parallel", "contaminated"]
    assert (row["verdict"], row["paper"]) == ("nothing to separate", "undecided")


def test_premises_are_measured_by_intervals_and_as_shares_of_the_gap(tmp_path):
    study = swept_study(tmp_path)
    premises = measure_premises(study, swept_scores(study))
    assert premises.granted == {"contaminated"}
    rows = {row["premise"]: row for row in premises.rows}
    assert all(set(row) == set(PREMISES) for row in premises.rows)
    assert rows["alignment lowers harmfulness"]["value"] == pytest.approx(1.4 * 2.0)
    assert rows["harmful fine-tuning leaves utility"]["value"] == pytest.approx(0.02)
    assert rows["useful fine-tuning leaves harmfulness"]["holds"]
    assert rows["the reference refuses them"]["bound"] == 2.0
    assert rows["the reference refuses them"]["ci_low"] < rows["the reference refuses them"]["ci_high"] < 2.0
    assert all(row["holds"] for row in premises.rows)


def test_a_task_that_moves_what_it_should_leave_fails_its_premise(tmp_path):
    study = swept_study(tmp_path)
    scores = swept_scores(study)
    moved = scores.task.eq("harmful") & scores.metric.eq("utility")
    scores.loc[moved, "value"] = scores.loc[moved, "value"] + 0.3
    rows = {row["premise"]: row for row in measure_premises(study, scores).rows}
    assert not rows["harmful fine-tuning leaves utility"]["holds"]
    assert rows["harmful fine-tuning leaves utility"]["value"] == pytest.approx(0.02 + 0.3 / 0.5)


def test_the_table_of_claims_has_a_row_for_each_experiment(tables, tmp_path):
    """Of the synthetic study of the other tests: energies, overlaps and activations, each by its formula."""
    study = swept_study(
        tmp_path,
        seeds=[0, 1, 4],
        projection={"fractions": [0.01, 0.25, 0.5, 0.75, 0.99], "doses": [0.2, 0.6], "energy_draws": 3},
        update_spaces={"etas": [0.01, 0.3, 0.6, 0.99], "percentiles": [0.7, 0.85]},
        activation_spaces={"etas": [0.1, 0.5, 0.9]},
    )
    found = verdicts(study, None, tables)
    assert {name for name, _ in found} == {claim.id for claim in CLAIMS if claim.table != "scores"}
    # Fewer than five seeds of what has no prompts decide nothing.
    assert {row["verdict"] for row in found.values()} == {"undecided"}
    kept = tables.energy[(tables.energy.tensor == "all") & (tables.energy.draw.fillna(0) == 0)]
    cell = kept[(kept.task == "useful") & (kept.fraction == found["energy-chance", "useful"]["fraction"])]
    expected = cell[cell.basis == "top_k"].energy_kept.mean() - cell[cell.basis == "random"].energy_expected.mean()
    assert found["energy-chance", "useful"]["effect"] == pytest.approx(expected, abs=1e-6)
