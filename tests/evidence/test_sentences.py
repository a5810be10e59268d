"""Sentences flip when the numbers flip, and hold the numbers they judge."""

from dataclasses import replace
from decimal import Decimal

import pytest

from safety_spaces.evaluation.intervals import Estimate
from safety_spaces.evidence import sentences
from safety_spaces.evidence.findings import find
from safety_spaces.evidence.findings.overlap import find_layerwise
from safety_spaces.evidence.findings.paper import Line, Order, PaperFinding
from safety_spaces.evidence.findings.robustness import find_general_ability, find_over_refusal
from safety_spaces.evidence.findings.single_layers import find_single_layers


def verdict(sentence):
    return sentence.split("**")[1]


def test_the_synthetic_study_agrees_with_the_paper(tables, grid):
    found = find(tables, grid)

    assert sentences.premises(found.premises).startswith("All premises hold")
    assert verdict(sentences.energy(found.energy)) == "Agrees with the paper."
    assert verdict(sentences.parallel(found.parallel)) == "Agrees with the paper."
    assert verdict(sentences.parallel(found.contaminated)) == "Agrees with the paper."
    assert "proportional within the noise" in sentences.orthogonal(found.orthogonal)
    assert "useful-harmful is the closest pair on average and in 3 of 3 seeds" in sentences.updates(found.updates)
    assert "In no checkpoint" in sentences.activations(found.activations[:3])


def test_numbers_are_in_the_sentences(tables, grid):
    found = find(tables, grid)

    assert "top_k keeps 0.51 at fraction 0.5 and random 0.50 (closed form 0.49)" in sentences.energy(found.energy)
    assert "utility of useful +0.05 [seeds +0.05 to +0.05], +14 % of the gap" in sentences.parallel(found.parallel)
    assert sentences.spread(found.updates.overlaps[0].excess) == "+0.27 [seeds +0.26 to +0.28]"
    assert sentences.signed(-0.001) == "+0.00"
    assert "uncentred: reference -0.03 [seeds -0.03 to -0.03]" in sentences.activations(found.activations[:3])


def test_premises_that_fail_are_named(shifted, grid):
    where = {"task": "useful", "metric": "utility"}
    sentence = sentences.premises(find(shifted("projection", "value", -0.5, **where), grid).premises)

    assert "2 premises fail (utility of useful at least reference + 0.15; " in sentence
    assert "utility of useful, parallel, is graded" in sentence


def test_energy_flips(shifted, grid):
    moved = shifted("energy", "energy_kept", 0.2, task="useful", basis="top_k", fraction=0.5, tensor="all")
    sentence = sentences.energy(find(moved, grid).energy)

    assert verdict(sentence) == "Differs from the paper."
    assert "top_k keeps 0.71" in sentence


@pytest.mark.parametrize(
    ("amount", "metric", "expected"),
    [
        (-0.4, "utility", "Differs from the paper.** Random directions carry more"),
        (-0.05, "utility", "Undecided.** The top directions carry more behaviour in part"),
        (-0.3, "harmfulness", "Undecided.** The top directions carry more behaviour in part"),
        (+0.3, "harmfulness", "Agrees with the paper.** The top directions carry more"),
    ],
)
def test_parallel_flips(shifted, grid, amount, metric, expected):
    moved = shifted("projection", "value", amount, scheme="parallel", basis="top_k", metric=metric)
    assert expected in sentences.parallel(find(moved, grid).parallel)


def test_parallel_may_tell_nothing(shifted, grid):
    moved = shifted("projection", "ci_high", 5.0, scheme="parallel")
    assert "Undecided.** No case tells" in sentences.parallel(find(moved, grid).parallel)


@pytest.mark.parametrize(
    ("amount", "where", "expected"),
    [
        (-0.6, {"basis": "top_k"}, "Differs from the paper.** Removing the top directions is selective"),
        (+0.6, {"basis": "top_k"}, "costs more utility than harmfulness"),
        (-0.6, {}, "Harmfulness falls faster than utility, but not demonstrably more with the top directions"),
    ],
)
def test_orthogonal_flips(shifted, grid, amount, where, expected):
    moved = shifted("projection", "value", amount, scheme="orthogonal", metric="harmfulness", **where)
    assert expected in sentences.orthogonal(find(moved, grid).orthogonal)


def test_orthogonal_without_a_gap(shifted, grid):
    moved = shifted("projection", "value", -0.4, task="contaminated", scheme="none", metric="utility")
    sentence = sentences.orthogonal(find(moved, grid).orthogonal)

    assert verdict(sentence) == "Undecided."
    assert "utility -0.10 [seeds -0.10 to -0.10]" in sentence


@pytest.mark.parametrize(
    ("amount", "pair", "expected"),
    [
        (0.5, "harmful-reference", "Differs from the paper.** A shared safety subspace would look like this"),
        (0.5, "useful-reference", "Agrees with the paper.** The updates share structure"),
        (-0.5, "useful-reference", "Differs from the paper.** The updates do not all share structure"),
    ],
)
def test_updates_flip(shifted, grid, amount, pair, expected):
    assert expected in sentences.updates(find(shifted("update_spaces", "mso", amount, pair=pair), grid).updates)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, "Differs from the paper.** Harmful prompts overlap more with one another in every checkpoint"),
        ({"checkpoint": "useful"}, "Agrees with the paper.** Harmful prompts overlap more with one another in some"),
    ],
)
def test_activations_flip(shifted, grid, where, expected):
    moved = shifted("activation_spaces", "mso", 0.2, pair="harmful_1-harmful_2", **where)
    found = find(moved, grid).activations

    assert expected in sentences.activations(found[:3])
    assert "centred: reference" in sentences.activations(found[3:])


def line(value, published, *, fraction=None, metric="utility", same_scale=True):
    measured = Estimate(value, value - 0.02, value + 0.01, 64)
    return Line("useful", "random_k", fraction, metric, Decimal(published), measured, same_scale)


def test_numbers_next_to_the_paper_are_counted_and_the_farthest_is_named():
    lines = (line(0.41, "0.40"), line(0.52, "0.60", fraction=0.75), line(0.30, "0.30", fraction=0.5))
    distance = (
        "inside the interval in 2 of 3 lines; here minus paper is -0.023 on average and -0.080 where it is largest"
    )

    assert sentences.paper_numbers(PaperFinding(lines, ())) == (
        f"Utility: the number of the paper lies {distance} (useful, random_k, 0.75)."
    )
    assert sentences.paper_numbers(PaperFinding(lines[:1], ())).endswith("+0.010 where it is largest (useful).")


def test_numbers_of_another_scale_are_not_compared():
    judged = {"metric": "harmfulness", "fraction": 0.5}
    for same_scale, expected in ((True, "in 0 of 1 lines; here"), (False, "its order alone is compared.")):
        lines = (line(0.30, "0.30"), line(3.3, "2.1", same_scale=same_scale, **judged))
        sentence = sentences.paper_numbers(PaperFinding(lines, ()))
        assert sentence.startswith("Utility: ")
        assert expected in sentence
        assert ("+1.200" in sentence) == same_scale


def test_order_next_to_the_paper():
    orders = (Order("useful", "utility", 16, 0.974), Order("harmful", "harmfulness", 7, None))
    sentence = sentences.paper_order(PaperFinding((), orders))

    assert "fine-tuned: utility of useful +0.97 (n = 16); harmfulness of harmful undefined (n = 7). Scores" in sentence
    assert sentences.paper_order(PaperFinding((), ())).startswith("No projected model of the paper was scored here")


def test_layerwise_flips(tables, shifted, grid):
    assert "Agrees with the paper.** At no layer" in sentences.layerwise(find_layerwise(tables.update_spaces, grid))
    moved = shifted("update_spaces", "mso", 0.5, pair="harmful-reference", layer=4)
    sentence = sentences.layerwise(find_layerwise(moved.update_spaces, grid))
    assert "Differs from the paper.** Harmful and reference are the closest pair in every seed at 1 of 10" in sentence
    assert "layers: 4 (closest pair of 10 layers, on the mean over seeds: useful-harmful at 9, " in sentence
    in_one = shifted("update_spaces", "mso", 0.5, pair="harmful-reference", layer=4, seed=1)
    assert "Undecided.** Harmful and reference are the closest pair in some seeds only, at layers 4 " in (
        sentences.layerwise(find_layerwise(in_one.update_spaces, grid))
    )


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, "Differs from the paper.** At more than half of the states of every checkpoint"),
        ({"checkpoint": "useful"}, "Undecided.** Harmful prompts overlap more with one another at more than half"),
        ({"layer": 3}, "Agrees with the paper.** In no checkpoint do harmful prompts"),
    ],
)
def test_states_flip(shifted, grid, where, expected):
    moved = shifted("activation_spaces", "mso", 0.2, pair="harmful_1-harmful_2", **where)
    sentence = sentences.states(find(moved, grid).states[:3])
    assert expected in sentence
    assert f"useful at {1 if 'layer' in where else 11} of 11" in sentence


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (
            {},
            "Differs from the paper.** Harmful prompts overlap more with one another than with useful ones: in 6 of 6",
        ),
        ({"window_of": "prompt"}, "Agrees with the paper.** Harmful prompts do not always overlap more"),
    ],
)
def test_windows_flip(shifted, appendices, where, expected):
    moved = shifted(
        "activation_spaces", "mso", 0.2, pair="harmful_1-harmful_2", position="early_window", centred=True, **where
    )
    windows = find(moved, appendices).windows
    centred = sentences.windows([one for one in windows if one.centred])
    assert expected in centred
    assert ("in 3 of 6" in centred) == bool(where)
    assert "in 0 of 6" in sentences.windows([one for one in windows if not one.centred])


def test_refusal_flips(tables, shifted, appendices):
    assert "Differs from the paper.**" in sentences.activations(find(tables, appendices).refusal[:3])
    moved = shifted("activation_spaces", "mso", 0.3, pair="refusal-harmful_2")
    sentence = sentences.activations(find(moved, appendices).refusal[:3])
    assert "Agrees with the paper.** In no checkpoint" in sentence
    assert "minus the larger refusal-harmful one, uncentred" in sentence


def test_removal_flips(tables, shifted, appendices):
    assert "Agrees with the paper.** No layer alone" in sentences.removal(
        find_single_layers(tables.projection, appendices).removals
    )
    where = {"scheme": "orthogonal", "metric": "harmfulness"}
    moved = shifted("projection", "value", -0.6, **where, layers="3", others="whole", basis="top_k")
    sentence = sentences.removal(find_single_layers(moved.projection, appendices).removals)
    selective = "Removal is selective, more than that of random directions, in"
    assert f"Undecided.** {selective} layers 3 (others whole), one of 6 cases, which chance can do (" in sentence
    assert "6 cases of 3 layers were looked at" in sentence
    moved = shifted("projection", "value", -0.6, **where, layers="3", basis="top_k")
    sentence = sentences.removal(find_single_layers(moved.projection, appendices).removals)
    assert f"Differs from the paper.** {selective} layers 3 (others whole); layers 3 (others out) (" in sentence
    still = find_single_layers(
        shifted("projection", "value", 2.0, **where, basis="top_k").projection, appendices
    ).removals
    assert "Undecided.** No single layer removes harmfulness beyond the noise" in sentences.removal(still)
    assert "there is no gap" in sentences.removal(None)


def test_carriage_flips(tables, shifted, appendices):
    assert "Agrees with the paper.** Claimed directions of no layer alone" in (
        sentences.carriage(find_single_layers(tables.projection, appendices).carriages)
    )
    where = {"scheme": "parallel", "basis": "top_k", "others": "out"}
    still = shifted("projection", "value", -2.0, **where, metric="harmfulness")
    sentence = sentences.carriage(find_single_layers(still.projection, appendices).carriages)
    assert "Undecided.** Claimed directions of no single layer add harmful behaviour beyond the noise" in sentence
    assert "there is no gap" in sentences.carriage(None)


def test_harm_carried_by_one_layer_alone_may_be_chance(shifted, appendices):
    where = {"scheme": "parallel", "basis": "top_k", "others": "out"}
    # Useful behaviour is added nowhere, harmful behaviour in the layers that are not silenced.
    rows = shifted("projection", "value", -0.2, **where, metric="utility").projection
    harmful = (rows.others == "out") & (rows.scheme == "parallel") & (rows.metric == "harmfulness")
    carrying = "Claimed directions carry harmful behaviour without useful behaviour in layers"
    for silenced, expected in (
        (["0", "3"], f"Undecided.** {carrying} 9 (others out), one of 3 cases, which chance can do ("),
        (["0"], f"Differs from the paper.** {carrying} 3, 9 (others out) ("),
    ):
        changed = rows.assign(value=rows.value.mask(harmful & rows.layers.isin(silenced), 1.5))
        assert expected in sentences.carriage(find_single_layers(changed, appendices).carriages)


def test_harm_lost_with_other_directions_is_named_and_decides_nothing(shifted, appendices):
    where = {"scheme": "parallel", "metric": "harmfulness", "basis": "top_k", "others": "whole"}
    moved = shifted("projection", "value", -0.9, **where, layers="9")
    sentence = sentences.carriage(find_single_layers(moved.projection, appendices).carriages)
    assert "Agrees with the paper.** Claimed directions of no layer alone" in sentence
    assert "lost with the other directions of the layer in layers 9 (others whole)" in sentence
    whole = replace(
        appendices, single_layers=tuple(replace(one, others=("whole",)) for one in appendices.single_layers)
    )
    sentence = sentences.carriage(find_single_layers(moved.projection, whole).carriages)
    assert "Undecided.** Claimed directions of no single layer add" in sentence
    assert "others out" not in sentence


@pytest.mark.parametrize(
    ("amount", "where", "expected"),
    [
        (0.0, {}, "Agrees with the paper.** General ability of useful, parallel stays between"),
        (-0.1, {"basis": "random"}, "Differs from the paper.** General ability of useful, parallel falls below"),
        (0.1, {"basis": "random"}, "Differs from the paper.** General ability of useful, parallel rises above"),
        (
            -1.0,
            {"basis": "top_k", "fraction": 0.5, "seed": 4},
            "Undecided.** General ability of useful, parallel leaves the interval",
        ),
    ],
)
def test_general_ability_flips(shifted, appendices, amount, where, expected):
    chosen = {"task": "useful", "metric": "general_ability", "scheme": "parallel", **where}
    moved = shifted("projection", "value", amount, **chosen)
    if "seed" in where:  # the others on the other side of both models
        moved = replace(moved, projection=moved.projection.copy())
        rows = moved.projection
        cell = (rows.metric == "general_ability") & (rows.basis == "top_k") & (rows.fraction == 0.5)
        rows.loc[cell & (rows.seed != 4), "value"] += 0.2
    sentence = sentences.general_ability(find_general_ability(moved.projection, appendices)[0])
    assert expected in sentence
    assert "chance 0.25" in sentence
    assert "5 worked examples" in sentence
    assert "15 models were looked at" in sentence


def test_general_ability_at_chance_decides_nothing(shifted, appendices):
    moved = shifted("projection", "ci_low", -0.5, task="reference", metric="general_ability")
    assert "Undecided.** General ability of useful, parallel: the reference has none" in (
        sentences.general_ability(find_general_ability(moved.projection, appendices)[0])
    )


@pytest.mark.parametrize(
    ("amount", "where", "expected"),
    [
        (
            0.0,
            {"scheme": "parallel"},
            "Agrees with the paper.** Projection of harmful, parallel induces no over-refusal",
        ),
        (0.3, {"scheme": "parallel"}, "Differs from the paper.** Projection of harmful, parallel induces over-refusal"),
        (0.96, {"scheme": "none"}, "Undecided.** Over-refusal of harmful, parallel: its models refuse nearly"),
    ],
)
def test_over_refusal_flips(shifted, appendices, amount, where, expected):
    moved = shifted("projection", "value", amount, task="harmful", metric="over_refusal", **where)
    sentence = sentences.over_refusal(find_over_refusal(moved.projection, appendices)[0])
    assert expected in sentence
    assert "judge keywords" in sentence


def test_over_refusal_of_one_seed_alone_decides_nothing(shifted, appendices):
    moved = shifted("projection", "value", 0.3, task="harmful", metric="over_refusal", scheme="parallel", seed=4)
    assert "Undecided.** Over-refusal of harmful, parallel rises beyond the noise, but not in every seed" in (
        sentences.over_refusal(find_over_refusal(moved.projection, appendices)[0])
    )
