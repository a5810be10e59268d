"""Utility is lm-eval's gsm8k, field by field and number by number."""

import json
import re
from pathlib import Path

import lm_eval
import pytest
import torch
import yaml

from safety_spaces.behaviour.generation import generate
from safety_spaces.behaviour.live import WeightEdit, edited_weights
from safety_spaces.behaviour.utility import TASK, UtilityTask, gsm8k_task
from tests.pico_model import pico_problems

PROBLEMS = pico_problems(9, seed=2)
EXAMPLES = pico_problems(2, seed=3)
MAX_NEW_TOKENS = 11


def write_problems(path, problems):
    rows = [{"question": problem.question, "answer": problem.gsm8k_answer} for problem in problems]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def definition(folder, *, number_of_shots=0):
    return gsm8k_task(
        test=write_problems(folder / "test.jsonl", PROBLEMS),
        few_shot=write_problems(folder / "train.jsonl", EXAMPLES),
        number_of_shots=number_of_shots,
        max_new_tokens=MAX_NEW_TOKENS,
        cache=folder / "cache",
    )


@pytest.fixture(scope="module")
def ask(model, tokenizer, tmp_path_factory):
    """Ask the pico model; `responses` replaces what it says."""

    def ask(*, responses=None, limit=None, number_of_shots=0):
        task = definition(tmp_path_factory.mktemp("utility"), number_of_shots=number_of_shots)
        utility = UtilityTask(model, tokenizer, task, limit=limit, batch_size=4)
        if responses is not None:
            utility._live.generate_until = lambda requests, **_: list(responses)
        return utility()

    return ask


def flexible_extract(response, gold):
    """The last thing like a number against the number after ####, commas, dollars and a last full stop ignored."""
    found = [pair[0] or pair[1] for pair in re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", response)]
    given, right = found[-1] if found else "[invalid]", gold
    for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"):
        given, right = re.sub(pattern, "", given), re.sub(pattern, "", right)
    return float(given.lower() == right.lower())


def test_scores_of_scripted_responses_are_those_of_flexible_extract(ask):
    right = [str(problem.result) for problem in PROBLEMS]
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
    expected = [flexible_extract(r, p.gsm8k_answer) for r, p in zip(responses, PROBLEMS, strict=True)]
    assert [answer.score for answer in answers] == expected == [1, 1, 1, 0, 1, 0, 0, 0, 0]


def test_the_live_model_is_asked_raw_and_answers_greedily(ask, model, tokenizer):
    answers = ask()
    assert [answer.prompt for answer in answers] == [f"Question: {problem.question}\nAnswer:" for problem in PROBLEMS]
    responses = generate(
        model, tokenizer, [answer.prompt for answer in answers], max_new_tokens=MAX_NEW_TOKENS, batch_size=1
    )
    assert [answer.response for answer in answers] == [response.split("Question:")[0] for response in responses]
    expected = [flexible_extract(a.response, p.gsm8k_answer) for a, p in zip(answers, PROBLEMS, strict=True)]
    assert [answer.score for answer in answers] == expected


def test_a_prepared_task_sees_the_weights_of_the_moment(model, tokenizer, tmp_path):
    utility = UtilityTask(model, tokenizer, definition(tmp_path), limit=3, batch_size=2)
    before = utility()
    name = "model.embed_tokens.weight"
    reference = model.state_dict()[name].clone()
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    with edited_weights(model, [WeightEdit(name, reference, noise)], restore=lambda _: reference):
        assert [answer.response for answer in utility()] != [answer.response for answer in before]
    assert utility() == before


@pytest.mark.parametrize("limit", [1, 4])
def test_a_limit_takes_the_first_problems(ask, limit):
    assert [answer.prompt for answer in ask(limit=limit)] == [
        f"Question: {problem.question}\nAnswer:" for problem in PROBLEMS[:limit]
    ]


def test_one_shot_puts_one_worked_example_in_front(ask):
    examples = [f"Question: {problem.question}\nAnswer: {problem.gsm8k_answer}\n\n" for problem in EXAMPLES]
    for answer, problem in zip(ask(number_of_shots=1), PROBLEMS, strict=True):
        asked = f"Question: {problem.question}\nAnswer:"
        assert answer.prompt in {example + asked for example in examples}


def test_the_task_is_that_of_lm_eval(tmp_path):
    own = definition(tmp_path)
    theirs = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text())
    assert theirs["metadata"]["version"] == 3.0
    extraction = {"filter_list": [entry for entry in theirs["filter_list"] if entry["name"] == "flexible-extract"]}
    differing = {"task", "dataset_path", "dataset_kwargs", "num_fewshot", "generation_kwargs", "filter_list"}
    assert {key: value for key, value in own.items() if key not in differing} == {
        key: theirs[key] for key in own if key not in differing
    }
    assert own["filter_list"] == extraction["filter_list"]
    generation, their_generation = own["generation_kwargs"], theirs["generation_kwargs"]
    assert {key: generation[key] for key in ("do_sample", "temperature")} == {
        key: their_generation[key] for key in ("do_sample", "temperature")
    }
    assert set(generation["until"]) <= set(their_generation["until"])
    assert own["task"] == TASK
