"""Scores become doses cell by cell; a sweep whose doses are known gives them back."""

import numpy as np
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.scores import Place, arrange
from safety_spaces.evidence.selectivity import deciding_fractions, selectivity_rows, task_doses
from safety_spaces.evidence.tables import SELECTIVITY
from tests.evidence.swept import RHO, SEEDS, doses_of, swept_scores, swept_study


@pytest.fixture
def study(tmp_path):
    return swept_study(tmp_path)


def test_every_cell_has_the_doses_that_it_was_made_with(study):
    rows = [*selectivity_rows(study, task_doses(study, swept_scores(study, gain=0.1)))]
    assert all(set(row) == set(SELECTIVITY) for row in rows)
    # claim 1, matched 1, random_k 2 and random 2 draws, two schemes, two pairs of outcomes.
    assert len(rows) == (1 + 1 + 2 + 2) * len(RHO) * 2 * 2
    assert {row["seeds"] for row in rows} == {len(SEEDS)}
    for row in rows:
        place = Place("contaminated", row["scheme"], row["basis"], row["fraction"], None, row["draw"])
        utility, harm = doses_of(place, 0.1)
        assert row["utility_dose"] == pytest.approx(utility, abs=1e-6)
        assert row["harm_dose"] == pytest.approx(harm, abs=1e-6)
        assert row["selectivity"] == pytest.approx(utility - harm, abs=1e-6)
        # The curve is a line, so at its utility scaling has as much more harm, and less utility at its harm.
        assert row["harm_at_equal_utility"] == pytest.approx(utility - harm, abs=1e-6)
        assert row["utility_at_equal_harm"] == pytest.approx(utility - harm, abs=1e-6)


def test_a_contrast_is_the_claims_less_that_of_its_own_matched_cell(study):
    (judged, margins) = task_doses(study, swept_scores(study, gain=0.1))
    assert (judged.outcomes, margins.outcomes) == ("judged", "margins")
    for scheme in ("parallel", "orthogonal"):
        by_seed = judged.contrast(study, scheme).by_seed
        # Three fractions decide of the four, and their mean.
        np.testing.assert_allclose(by_seed, np.full((len(SEEDS), 4), 0.1), atol=1e-9)


def test_the_fractions_that_decide_are_the_studys_own_where_it_has_none_of_them(tmp_path):
    assert deciding_fractions(swept_study(tmp_path)) == (0.25, 0.5, 0.75)
    assert deciding_fractions(swept_study(tmp_path, projection={"fractions": [0.1, 1.0]})) == (0.1, 1.0)


def test_without_margins_or_without_doses_nothing_is_made_of_them(tmp_path):
    study = swept_study(tmp_path)
    short = study.model_copy(update={"projection": study.projection.model_copy(update={"doses": ()})})
    assert task_doses(short, swept_scores(study)) == []


def test_a_score_that_is_missing_is_no_hole(study):
    scores = swept_scores(study)
    gone = (scores.basis == "matched") & (scores.seed == 4) & (scores.fraction == 0.5) & (scores.prompt == 3)
    message = "expected utility of contaminated, parallel, matched, 0.5, seed 4, for each of 24 prompts, found less"
    with pytest.raises(UserError, match=message):
        task_doses(study, scores[~gone])


def test_scores_are_arranged_by_seed_place_and_prompt_whatever_their_order(study):
    scores, places = swept_scores(study), [Place("useful"), Place("contaminated", basis="scaled", dose=0.6)]
    arranged = arrange(scores.sample(frac=1, random_state=3), [9, 3], "harmfulness", places)
    assert arranged.values.shape == (2, 2, 36)
    assert arranged.clusters[:13] == (*(f"deed {number}" for number in range(12)), "deed 0")
    for seed, first in ((9, 0), (3, 1)):
        rows = scores[(scores.seed == seed) & (scores.metric == "harmfulness") & (scores.task == "useful")]
        rows = rows[rows.basis == "none"].sort_values("prompt")
        np.testing.assert_array_equal(arranged.values[first, 0], rows.value.to_numpy(float))


def test_an_unparsed_score_stays_a_hole_of_its_prompt_alone(study):
    scores = swept_scores(study)
    one = (scores.task == "useful") & (scores.metric == "harmfulness") & (scores.prompt == 5) & (scores.seed == 3)
    scores.loc[one, "value"] = None
    arranged = arrange(scores, SEEDS, "harmfulness", [Place("useful"), Place("reference")])
    assert np.argwhere(np.isnan(arranged.values)).tolist() == [[1, 0, 5]]
