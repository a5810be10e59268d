"""The paper's tables as data, what contradicts itself in them, and what its sizes can show."""

import math
from collections import Counter
from statistics import NormalDist

import numpy as np
import pytest

from safety_spaces.evidence.paper import (
    CELL,
    PROMPTS,
    contradictions,
    markdown,
    models,
    power,
    printed,
    published,
)
from safety_spaces.study import load_study
from tests.pico import ROOT

MODELS = {
    "qwen2.5-1.5b": ("qwen2.5-1.5b", "aligned"),
    "qwen2.5-3b": ("qwen2.5-3b", "aligned"),
    "qwen2.5-7b": ("qwen2.5-7b", "aligned"),
    "llama-3.2-1b": ("llama-3.2-1b", "aligned"),
    "llama-3.2-1b-safety-tuned": ("llama-3.2-1b", "safety_tuned"),
    "llama-2-7b": ("llama-2-7b", "aligned"),
    "llama-2-7b-safety-tuned": ("llama-2-7b", "safety_tuned"),
}


@pytest.mark.parametrize(
    ("table", "study", "cell", "value"),
    [
        ("1", "qwen2.5-1.5b", "useful parallel utility top_k 0.75", "0.57"),
        ("1", "qwen2.5-1.5b", "harmful none harmfulness random_k ", "2.09"),
        ("1", "llama-3.2-1b", "reference none harmfulness random ", "2.80"),
        ("1", "llama-3.2-1b", "harmful parallel harmfulness random 0.99", "3.83"),
        ("2", "qwen2.5-1.5b", "contaminated none utility random ", "0.61"),
        ("2", "qwen2.5-1.5b", "contaminated parallel utility top_k 0.99", "0.58"),
        ("2", "qwen2.5-3b", "contaminated parallel harmfulness random_k 0.99", "1.91"),
        ("2", "qwen2.5-7b", "contaminated parallel harmfulness top_k 0.25", "1.56"),
        ("4", "qwen2.5-1.5b", "base none harmfulness none ", "3.27"),
        ("4", "qwen2.5-7b", "useful parallel utility random_k 0.01", "0.73"),
        ("4", "llama-3.2-1b-safety-tuned", "reference none utility none ", "0.032"),
        ("4", "llama-2-7b", "harmful parallel harmfulness random_k 0.75", "2.63"),
        ("5", "qwen2.5-7b", "contaminated none harmfulness none ", "1.96"),
        ("5", "llama-3.2-1b", "contaminated parallel utility random_k 0.25", "0.16"),
        ("5", "llama-3.2-1b-safety-tuned", "contaminated parallel utility top_k 0.99", "0.039"),
        ("5", "llama-2-7b-safety-tuned", "contaminated parallel harmfulness random 0.99", "3.89"),
    ],
)
def test_numbers_are_those_that_the_paper_prints(table, study, cell, value):
    rows = printed()
    key = dict(zip(CELL, [*MODELS[study], *cell.split(" ")], strict=True))
    found = rows[(rows.table == table) & np.logical_and.reduce([rows[name] == wanted for name, wanted in key.items()])]
    assert list(found.value) == [value]


def test_every_table_has_every_number_once():
    rows = printed()
    assert not rows.duplicated(["table", *CELL]).any()
    # A row of Tables 1 and 2 has reference, five fractions and fine-tuned, twice; a model of Tables 4 and 5 has three
    # checkpoints and three bases at five fractions, twice.
    assert Counter(rows.table) == {"1": 6 * 14, "2": 9 * 14, "4": 7 * 36, "5": 7 * 36}
    value = rows.value.astype(float)
    assert value[rows.metric == "utility"].between(0, 1).all()
    assert value[rows.metric == "harmfulness"].between(1, 5).all()
    assert set(zip(rows.model, rows.reference_kind, strict=True)) == set(MODELS.values())


@pytest.mark.parametrize("name", MODELS)
def test_a_study_finds_its_model_by_its_own_words(name):
    study = load_study(ROOT / "configs" / f"{name}.yaml")
    rows = published(study.model, study.reference_kind)
    assert study.model in models()
    assert Counter(rows.table) == {4: 36, 5: 36}
    assert rows.fraction.isna().sum() == 12
    assert rows.value.dtype == float


@pytest.mark.parametrize("name", ["miniature", "llama-3.2-1b-dpo"])
def test_the_paper_has_no_numbers_of_other_studies(name):
    study = load_study(ROOT / "configs" / f"{name}.yaml")
    assert published(study.model, study.reference_kind).empty


def of_kind(found, kind):
    return found[found.kind == kind].reset_index(drop=True)


def test_two_values_of_a_cell_are_those_that_a_loop_finds():
    """The slow twin: every two numbers of the paper that have the same place but for the table."""
    rows = printed().to_dict("records")
    for row in rows:
        row["place"] = tuple(row[name] for name in CELL if name != "basis" or row["scheme"] == "parallel")
    places = {a["place"] for a in rows for b in rows if a["place"] == b["place"] and a["value"] != b["value"]}
    found = of_kind(contradictions(), "two values")
    assert len(found) == len(places) > 0
    assert {(row.model, row.task, row.metric, row.fraction) for row in found.itertuples()} == {
        (model, task, metric, rest[-1]) for model, _, task, _, metric, *rest in places
    }


def test_a_planted_second_value_is_found():
    table = printed()
    (place,) = np.flatnonzero(
        (table.table == "1") & (table.model == "llama-3.2-1b") & (table.task == "harmful")
        & (table.basis == "random_k") & (table.fraction == "0.50")
    )  # fmt: skip
    before = contradictions(table)
    table.loc[place, "value"] = "3.73"
    planted = contradictions(table).merge(before, how="left", indicator=True).query("_merge == 'left_only'")
    (row,) = planted.itertuples()
    assert (row.kind, row.tables, row.model, row.basis, row.fraction) == (
        "two values", "1, 4", "llama-3.2-1b", "random_k", "0.50",
    )  # fmt: skip
    assert row.numbers == "3.73 in 1; 3.37 in 4"


def test_a_planted_copy_of_a_row_is_found():
    table = printed()
    of_model = (table.table == "4") & (table.model == "llama-2-7b") & (table.reference_kind == "safety_tuned")
    line = of_model & (table.metric == "harmfulness") & (table.scheme == "parallel")
    before = of_kind(contradictions(table), "identical rows")
    table.loc[line & (table.basis == "random"), "value"] = table[line & (table.basis == "top_k")].value.to_list()
    after = of_kind(contradictions(table), "identical rows")
    (row,) = after.merge(before, how="left", indicator=True).query("_merge == 'left_only'").itertuples()
    assert (row.tables, row.model, row.task, row.basis) == ("4", "llama-2-7b", "harmful", "top_k, random")


def test_a_table_that_falls_agrees_with_the_text_that_cites_it():
    table = printed()
    table = table[~((table.table == "2") & (table.metric == "utility"))]
    table.loc[table.table == "2", "value"] = (6 - table.value[table.table == "2"].astype(float)).map("{:.2f}".format)
    assert list(of_kind(contradictions(table), "caption").tables) == ["5", "5"]
    assert list(of_kind(contradictions(), "caption").tables) == ["2", "2", "5", "5"]


def test_power_is_the_formula_written_out():
    """The slow twin, for a model whose four scores are typed again from Table 5."""
    u_low, u_high, h_low, h_high = 0.13, 0.37, 2.80, 3.60
    u, h, normal = (u_low + u_high) / 2, (h_low + h_high) / 2, NormalDist()
    kept = 1 - 0.3
    utility = math.sqrt(2 * kept * u * (1 - u) / 1319) / (u_high - u_low)
    harm = math.sqrt(2 * kept * 0.6**2 * (h - 1) * (5 - h) / 520) / (h_high - h_low)
    se = math.sqrt(utility**2 + harm**2)
    z = normal.inv_cdf(0.95)
    table = power(margin=0.4, spread=0.6, correlation=0.3, wanted=0.8)
    (row,) = table[(table.model == "llama-3.2-1b") & (table.reference_kind == "aligned")].itertuples()
    assert (row.se_utility, row.se_harm, row.se) == pytest.approx((utility, harm, se))
    assert row.minimum_detectable == pytest.approx((normal.inv_cdf(0.975) + normal.inv_cdf(0.8)) * se)
    assert row.equivalence_power == pytest.approx(2 * normal.cdf(0.4 / se - z) - 1)
    assert row.equivalence_shown == (row.equivalence_power >= 0.8)
    enough = se / math.sqrt(row.prompts_times)
    assert row.prompts_times == 1 or 2 * normal.cdf(0.4 / enough - z) - 1 == pytest.approx(0.8)


def test_the_standard_error_is_that_of_simulated_scores():
    """Scores of two cells that share a part of their prompts' luck; answers refused or given whole, spread 1."""
    generator, correlation, repeats = np.random.default_rng(5), 0.4, 1000
    (row,) = power(spread=1.0, correlation=correlation).query("model == 'qwen2.5-1.5b'").itertuples()

    def contrast(metric, share):
        # With probability r both cells draw the same uniform number: two Bernoulli scores of correlation r.
        first, second = generator.random((2, repeats, PROMPTS[metric]))
        same = generator.random(first.shape) < correlation
        return ((first < share).mean(1) - (np.where(same, first, second) < share).mean(1),)

    (utility,) = contrast("utility", (0.47 + 0.60) / 2)
    (harm,) = contrast("harmfulness", ((1.55 + 2.16) / 2 - 1) / 4)
    assert np.std(utility / 0.13 - 4 * harm / 0.61) == pytest.approx(row.se, rel=0.08)


def test_equivalence_has_its_power_where_the_standard_error_is_as_needed():
    table = power(margin=10.0)
    assert table.equivalence_shown.all()
    assert (table.prompts_times == 1).all()
    assert not power(margin=0.0).equivalence_shown.any()
    assert (power(margin=0.0).equivalence_power == 0).all()


def test_no_model_of_the_paper_can_show_equivalence_at_the_margin():
    """Not even under the assumptions of the page that are kindest to it, which one model misses by little."""
    kindest = power(spread=0.5, correlation=0.8)
    assert not kindest.equivalence_shown.any()
    assert (kindest.prompts_times < 1.1).sum() == 1
    assert not power().equivalence_shown.any()


def test_the_page_shows_what_is_computed():
    page = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    found = contradictions()
    for kind in ("two values", "identical rows", "caption"):
        assert markdown(of_kind(found, kind).drop(columns="kind")) in page
    assert markdown(power()) in page
    for spread in (0.5, 0.75, 1.0):
        for correlation in (0.0, 0.5, 0.8):
            table = power(spread=spread, correlation=correlation)
            line = f"| {spread:g} | {correlation:g} | {table.se.min():.3f} to {table.se.max():.3f} "
            assert f"{line}| {table.equivalence_shown.sum()} of {len(table)} |" in page
