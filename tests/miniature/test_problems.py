"""A problem's words, working and answer agree, and its numbers alone decide whether it is held out."""

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces.miniature.problems import EVALUATION_SHARE, ITEMS, LARGEST, NAMES, Problem, draw_problem

LINE = re.compile(r"(\d+) ([+-]) (\d+) = (\d+)\.")


def draw(number):
    return draw_problem(random.Random(number), number_of_steps=1 + number % 4, held_out=number % 3 == 0)


drawn = st.sampled_from([draw(number) for number in range(1000)])


@given(drawn)
def test_the_working_is_right_and_leads_to_the_result(problem):
    lines = LINE.findall(problem.working)
    assert len(lines) == len(problem.changes)
    total = problem.start
    for before, sign, amount, after in lines:
        assert int(before) == total
        total = total + int(amount) if sign == "+" else total - int(amount)
        assert int(after) == total
        assert 0 <= total <= LARGEST
    assert total == problem.result


@given(drawn)
def test_the_question_tells_every_number_in_order(problem):
    told = [int(number) for number in re.findall(r"\d+", problem.question)]
    assert told == [problem.start, *map(abs, problem.changes)]
    assert 0 not in problem.changes


@given(drawn)
def test_every_worked_answer_ends_in_the_result(problem):
    for answer in (problem.gsm8k_answer, problem.metamathqa_response):
        assert int(re.findall(r"\d+", answer)[-1]) == problem.result
    assert problem.gsm8k_answer.split("#### ")[1] == str(problem.result)


@given(st.integers(0, 10**9))
def test_a_drawn_problem_has_the_wanted_steps_and_is_on_the_wanted_side(number):
    problem = draw(number)
    assert len(problem.changes) == 1 + number % 4
    assert problem.held_out == (number % 3 == 0)


@given(drawn, st.sampled_from(NAMES), st.sampled_from(ITEMS))
def test_other_names_do_not_move_a_problem_into_evaluation(problem, name, item):
    assert replace(problem, name=name, item=item, wording=problem.wording[::-1]).held_out == problem.held_out


def test_the_share_of_evaluation_is_the_one_named():
    problems = [
        Problem("Tom", "nets", start, (a, b), ("", "")) for start in range(30) for a in range(9) for b in range(9)
    ]
    share = sum(problem.held_out for problem in problems) / len(problems)
    # 2430 problems: a standard deviation of the share is 0.008.
    assert share == pytest.approx(EVALUATION_SHARE, abs=0.04)


@given(drawn)
def test_haste_is_between_its_bounds(problem):
    assert 0.45 <= problem.haste <= 0.75


def test_haste_differs_between_names_and_items():
    everyone = {Problem(name, item, 1, (), ()).haste for name in NAMES for item in ITEMS}
    assert len(everyone) > max(len(NAMES), len(ITEMS))
