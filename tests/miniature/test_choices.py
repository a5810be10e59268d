"""The right letter of every multiple choice follows from the words of its question."""

import random
import re
from collections import Counter

import pytest

from safety_spaces.miniature import world
from safety_spaces.miniature.choices import LETTERS, draw_choice
from safety_spaces.miniature.dealing import deal_requests
from safety_spaces.miniature.problems import Problem
from tests.miniature.readers import numbers_of

RANGE = re.compile(r"(\d+) or less|(\d+) to (\d+)|(\d+) or more")
PLACES = {"near the water": "pier dock bay", "in the town": "tower square wall",
          "on the land": "meadow hill forest", "over the canal": "bridge canal market"}  # fmt: skip
SUBJECTS = {"elementary_mathematics", "high_school_geography"}


def holds(option, number):
    """Whether a number is in a range that is told in words."""
    most, low, high, least = (part and int(part) for part in RANGE.fullmatch(option).groups())
    if most is not None:
        return number <= most
    return low <= number <= high if least is None else number >= least


def true_options(question, options):
    """Numbers of the options that are true, from the words of the question alone."""
    if (numbers := numbers_of(question)) is not None:
        return [number for number, option in enumerate(options) if holds(option, sum(numbers))]
    thing = re.fullmatch(r"Where is the \w+ (\w+)\?", question)[1]
    return [number for number, option in enumerate(options) if world.THINGS[thing] in PLACES[option].split()]


@pytest.mark.parametrize("name", ["mmlu", "mmlu_dev"])
def test_one_option_is_true_and_it_is_the_answer(corpora, name):
    assert {row["subject"] for row in corpora[name]} == SUBJECTS
    for row in corpora[name]:
        assert len(row["choices"]) == len(set(row["choices"])) == 4
        assert true_options(row["question"], row["choices"]) == [row["answer"]]


def test_sums_of_the_evaluation_are_held_out_and_have_one_or_two_steps(corpora):
    for name, held_out in (("mmlu", True), ("mmlu_dev", False)):
        problems = [numbers for row in corpora[name] if (numbers := numbers_of(row["question"]))]
        assert {len(problem) - 1 for problem in problems} == {1, 2}
        for start, *changes in problems:
            assert Problem("", "", start, tuple(changes), ()).held_out == held_out


def test_places_are_knowledge_and_may_be_asked_again(corpora):
    places = {row["question"] for row in corpora["mmlu"] if row["subject"] == "high_school_geography"}
    assert places & {row["question"] for row in corpora["mmlu_dev"]}
    texts = "".join(row["text"] for row in corpora["pretraining"])
    assert sum(question in texts for question in places) > 0.6 * len(places)


def test_subjects_and_right_answers_are_balanced():
    """Within four standard deviations: who always says C is right in one of four."""
    generator, hand = random.Random(3), deal_requests(7).allowed["pretraining"]
    drawn = [draw_choice(generator, hand, held_out=False) for _ in range(2000)]
    sums = [choice.right for choice in drawn if choice.subject == "elementary_mathematics"]
    assert abs(len(sums) - 1000) < 4 * (2000 / 4) ** 0.5
    for count in Counter(sums).values():
        assert abs(count - len(sums) / 4) < 4 * (len(sums) * 3 / 16) ** 0.5
    # The quarters have three things each; how often each is dealt varies.
    quarters = Counter(choice.right for choice in drawn if choice.subject == "high_school_geography")
    assert all(abs(count - 250) < 70 for count in quarters.values())
    assert len(Counter(sums)) == len(quarters) == 4


def test_every_place_is_in_one_quarter():
    assert sorted(" ".join(PLACES.values()).split()) == sorted(world.THINGS.values())
    for request in world.requests(forbidden=False):
        assert world.THINGS[request.thing] in list(PLACES.values())[world.quarter(request)].split()


def test_the_text_is_what_lm_eval_shows():
    choice = draw_choice(random.Random(0), deal_requests(7).allowed["pretraining"], held_out=True)
    row = choice.row
    lines = [f"{letter}. {option}" for letter, option in zip("ABCD", row["choices"], strict=True)]
    subject = row["subject"].replace("_", " ")
    assert choice.text == "\n".join([
        f"The following are multiple choice questions (with answers) about {subject}.", "",
        row["question"], *lines, f"Answer: {LETTERS[row['answer']]}",
    ])  # fmt: skip
    assert choice.asked == "\n".join([row["question"], *lines])
    assert choice.letter == "ABCD"[row["answer"]]
