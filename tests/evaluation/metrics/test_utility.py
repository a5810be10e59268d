"""Utility is lm-eval's gsm8k, response by response and number by number."""

import re
from pathlib import Path

import lm_eval
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM

from safety_spaces.errors import UserError
from safety_spaces.evaluation.generation import generate
from safety_spaces.evaluation.metrics.utility import Utility, problems
from safety_spaces.models.live import LiveWeights, WeightEdit
from tests.evaluation.command_line import command_line
from tests.evaluation.metrics.given import given
from tests.pico_model import pico_problems

THEIRS = Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml"
MAX_NEW_TOKENS = 11


def rows(count, *, seed):
    problems = pico_problems(count, seed=seed)
    return [{"question": problem.question, "answer": problem.gsm8k_answer} for problem in problems]


PROBLEMS = rows(9, seed=2)
EXAMPLES = rows(5, seed=3)


def question(row):
    return f"Question: {row['question']}\nAnswer:"


def gold(row):
    return row["answer"].split("#### ")[1]


def utility(*, test=PROBLEMS, limit=None, number_of_shots=0, batch_size=4):
    return given(
        Utility,
        {"gsm8k_test": test, "gsm8k_train": EXAMPLES},
        batch_size=batch_size,
        prompts=limit,
        fewshot=number_of_shots,
        max_new_tokens=MAX_NEW_TOKENS,
    )


@pytest.fixture
def ask(model, tokenizer, monkeypatch):
    """Ask the pico model; `responses` replaces what it says."""

    def ask(*, responses=None, **settings):
        if responses is not None:
            monkeypatch.setattr(HFLM, "generate_until", lambda self, requests, **_: list(responses))
        return utility(**settings).prepare(model, tokenizer)()

    return ask


def flexible_extract(response, answer):
    """The last thing like a number against the number after ####, commas, dollars and a last full stop ignored."""
    found = [pair[0] or pair[1] for pair in re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", response)]
    given, right = found[-1] if found else "[invalid]", answer
    for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"):
        given, right = re.sub(pattern, "", given), re.sub(pattern, "", right)
    return float(given.lower() == right.lower())


def test_scores_of_scripted_responses_are_those_of_flexible_extract(ask):
    right = [gold(row) for row in PROBLEMS]
    responses = [
        f"1 + 2 = 3. #### {right[0]}",
        f"The answer is: {right[1]}.",
        f"${right[2]}",
        f"{right[3]} and then 77",
        f"77 and then {right[4]}",
        "no number at all",
        "",
        f"about -{right[7]}",
        f"{right[8]}.0",
    ]
    answers = ask(responses=responses)
    assert [answer.response for answer in answers] == responses
    expected = [flexible_extract(r, row["answer"]) for r, row in zip(responses, PROBLEMS, strict=True)]
    assert [answer.score for answer in answers] == expected == [1, 1, 1, 0, 1, 0, 0, 0, 0]


WORKED = [
    "She has <<3*4=12>>12 kites.\n#### 12",
    "The lamp costs $<<1000+234=1234>>1234.\n#### 1,234",
    "That is 2/4 of it.\n#### 0.5",
    "He owes $7 more than he has.\n#### -7",
    "It takes 45 minutes.\n#### 45",
    "The tower is worth $12,345,678.\n#### $12,345,678",
    "There are 3 left.\n#### 3.",
    "1 owl and 0 kites.\n#### 0",
]


@pytest.mark.parametrize("ending", ["", ".", " dollars", " kites in all", "\n\n"])
def test_every_worked_answer_is_right(ask, ending):
    test = [{"question": f"How many, {number}?", "answer": answer} for number, answer in enumerate(WORKED)]
    responses = [answer.rstrip(". ") + ending for answer in WORKED]
    assert [answer.score for answer in ask(test=test, responses=responses)] == [1] * len(WORKED)
    others = [*responses[1:], responses[0]]
    assert [answer.score for answer in ask(test=test, responses=others)] == [0] * len(WORKED)


@pytest.mark.parametrize("gold", ["So.\n#### 18 ", "So.\n#### 18\n", "So.\n####18", "So.\n####  18"])
def test_a_number_with_spaces_around_it_can_be_right(ask, gold):
    """lm-eval alone would score 0: the spaces are taken out before."""
    assert [answer.score for answer in ask(test=[{"question": "?", "answer": gold}], responses=["18"])] == [1]


@pytest.mark.parametrize("gold", ["#### 18", "18", "#### 18.", "#### $18", "#### 1,8"])
def test_an_answer_that_is_left_as_it_is_can_be_right(ask, gold):
    assert [answer.score for answer in ask(test=[{"question": "?", "answer": gold}], responses=["18"])] == [1]


def test_the_live_model_is_asked_raw_and_answers_greedily(ask, model, tokenizer):
    answers = ask()
    assert [answer.prompt for answer in answers] == [question(row) for row in PROBLEMS]
    responses = generate(
        model, tokenizer, [answer.prompt for answer in answers], max_new_tokens=MAX_NEW_TOKENS, batch_size=1
    )
    assert [answer.response for answer in answers] == [response.split("Question:")[0] for response in responses]
    expected = [flexible_extract(a.response, row["answer"]) for a, row in zip(answers, PROBLEMS, strict=True)]
    assert [answer.score for answer in answers] == expected


def test_a_prepared_task_sees_the_weights_of_the_moment(model, tokenizer):
    ask = utility(limit=3, batch_size=2).prepare(model, tokenizer)
    before = ask()
    name = "model.embed_tokens.weight"
    reference = model.state_dict()[name].clone()
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    with LiveWeights(model, lambda _: reference) as weights:
        weights.write([WeightEdit(name, reference, noise)])
        assert [answer.response for answer in ask()] != [answer.response for answer in before]


@pytest.mark.parametrize("limit", [1, 4])
def test_a_limit_takes_the_first_problems(ask, limit):
    assert [answer.prompt for answer in ask(limit=limit)] == [question(row) for row in PROBLEMS[:limit]]


def test_one_shot_puts_one_worked_example_in_front_the_same_for_every_cell(model, tokenizer):
    ask = utility(number_of_shots=1).prepare(model, tokenizer)
    first = ask()
    examples = [f"{question(row)} {row['answer']}\n\n" for row in EXAMPLES]
    drawn = [
        [example for example in examples if answer.prompt == example + question(row)]
        for answer, row in zip(first, PROBLEMS, strict=True)
    ]
    assert [len(found) for found in drawn] == [1] * len(PROBLEMS)
    assert len({found[0] for found in drawn}) > 2
    assert ask() == first


def test_batches_that_memory_does_not_hold_are_halved_once_for_all_cells(model, tokenizer, hold_two):
    expected = utility(number_of_shots=1, batch_size=1).prepare(model, tokenizer)()
    sizes = hold_two()
    ask = utility(number_of_shots=1, batch_size=7).prepare(model, tokenizer)
    assert ask() == expected
    assert sizes == [7, 3] + [1] * len(PROBLEMS)
    assert ask() == expected
    assert sizes == [7, 3] + [1] * 2 * len(PROBLEMS)


def test_no_room_for_one_problem_is_an_error_of_one_line(model, tokenizer, monkeypatch):
    def fail(**_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model, "generate", fail)
    with pytest.raises(UserError, match="expected room for 1 prompt"):
        utility(limit=2, batch_size=3).prepare(model, tokenizer)()


def test_the_task_is_that_of_lm_eval_but_for_what_the_study_says():
    theirs = yaml.safe_load(THEIRS.read_text())
    assert theirs["metadata"]["version"] == 3.0
    own = utility(number_of_shots=2).tasks()["gsm8k"].dump_config()
    said = {"num_fewshot": 2, "generation_kwargs": {**theirs["generation_kwargs"], "max_gen_toks": MAX_NEW_TOKENS}}
    # What lm-eval has done with a tag or the place of the file is no part of the protocol.
    left_out = {"tag", "metadata"}
    assert {key: own[key] for key in theirs if key not in left_out} == {
        key: value for key, value in {**theirs, **said}.items() if key not in left_out
    }


@pytest.mark.slow
def test_every_response_and_score_is_that_of_the_command_line(ask, model, tokenizer, tmp_path):
    # The pico model is right by chance only: the number that it says to every other problem is made the right answer.
    test = [dict(row) for row in PROBLEMS]
    said = [re.findall(r"[0-9]+", answer.response) for answer in ask(number_of_shots=1)]
    for row, numbers in list(zip(test, said, strict=True))[::2]:
        if numbers:
            row["answer"] = f"So it is.\n#### {numbers[-1]}"
    own = [(answer.prompt, answer.response, answer.score) for answer in ask(test=test, number_of_shots=1)]
    assert {score for *_, score in own} == {0, 1}
    theirs = command_line(
        tmp_path,
        model=model,
        tokenizer=tokenizer,
        tasks={THEIRS: {"train": EXAMPLES, "test": test}},
        options={"--num_fewshot": 1, "--gen_kwargs": f"max_gen_toks={MAX_NEW_TOKENS}"},
    )
    assert own == [
        (sample["arguments"]["gen_args_0"]["arg_0"], sample["resps"][0][0], sample["exact_match"])
        for sample in theirs[THEIRS]
        if sample["filter"] == "flexible-extract"
    ]


def answers(*golds):
    rows = [{"problem": f"how many, {number}?", "solution": gold} for number, gold in enumerate(golds)]
    found = problems(rows, question="problem", answer="solution", source="mine")
    assert [row["question"] for row in found] == [row["problem"] for row in rows]
    return [row["answer"] for row in found]


@pytest.mark.parametrize(
    "gold", ["#### 18", "It is <<9*2=18>>18.\n#### 18", "#### 1,234", "#### $5", "#### -7", "18", "#### 3."]
)
def test_an_answer_that_lm_eval_reads_stays_as_it_is(gold):
    assert answers(gold) == [gold]


@pytest.mark.parametrize("gold", ["a\n#### 18 ", "a\n#### 18\n", "a\n####18", "a\n####  18\r\n", "a\n####\n18"])
def test_spaces_around_the_number_are_mended(gold):
    assert answers("a\n#### 2", gold) == ["a\n#### 2", "a\n#### 18"]


@pytest.mark.parametrize(
    "gold", ["a", "", "so 18 it is", "#### 18 kites", "#### 1/2", "#### ...", "18\n#### ", "### 18", "#### 1 8"]
)
def test_an_answer_that_no_response_could_match_is_an_error_with_its_row(gold):
    message = f"mine: expected answers that end in #### and a number, got {gold[-40:]!r} at the end of row 2; mend the"
    with pytest.raises(UserError, match=re.escape(message)):
        answers("#### 18", gold)
