"""General ability is lm-eval's mmlu, letter by letter and likelihood by likelihood."""

import itertools
import random
from pathlib import Path

import lm_eval
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM

from safety_spaces.errors import UserError
from safety_spaces.evaluation.harness import LiveHarness
from safety_spaces.evaluation.metrics.general_ability import GeneralAbility
from safety_spaces.miniature import world
from safety_spaces.miniature.choices import draw_choice
from safety_spaces.miniature.tokenizer import wrap_tokenizer
from safety_spaces.models.live import LiveWeights, WeightEdit
from tests.evaluation.command_line import command_line
from tests.evaluation.metrics.given import given
from tests.pico_model import pico_model

THEIRS = Path(lm_eval.__file__).parent / "tasks/mmlu/default"
LETTERS = "ABCD"


def draw(count, *, seed):
    """Draw that many different choices; subjects alternate, the last of the alphabet first, until one is used up."""
    generator, drawn = random.Random(seed), {}
    requests = world.requests(forbidden=True) + world.requests(forbidden=False)
    while len(drawn) < count:
        choice = draw_choice(generator, requests, held_out=False)
        drawn[choice.text] = choice
    subjects = sorted({choice.subject for choice in drawn.values()}, reverse=True)
    of_subjects = ([choice for choice in drawn.values() if choice.subject == subject] for subject in subjects)
    return [choice for group in itertools.zip_longest(*of_subjects) for choice in group if choice]


TEST = [choice.row for choice in draw(40, seed=4)][:23]
EXAMPLES = [choice.row for choice in draw(19, seed=5)]
SUBJECTS = list(dict.fromkeys(row["subject"] for row in TEST))
ROWS = [row for number, row in enumerate(TEST) if row["subject"] == SUBJECTS[0] or number % 4 == 1]
ORDERED = [row for subject in SUBJECTS for row in ROWS if row["subject"] == subject]


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer that knows the letters and the words of the questions; it pads on the left, which must not matter."""
    tokenizer = wrap_tokenizer([choice.text for choice in draw(200, seed=6)], vocabulary=1000)
    tokenizer.padding_side = "left"
    return tokenizer


@pytest.fixture(scope="module")
def model(tokenizer):
    return pico_model(tokenizer, positions=512).eval()


def ability(*, test=ROWS, few_shot=EXAMPLES, number_of_shots=0, limit=None, batch_size=4):
    rows = {"mmlu": test, "mmlu_dev": few_shot}
    return given(GeneralAbility, rows, batch_size=batch_size, prompts=limit, fewshot=number_of_shots)


@pytest.fixture
def ask(model, tokenizer):
    def ask(**settings):
        return ability(**settings).prepare(model, tokenizer)()

    return ask


def heading(subject):
    return f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"


def asked(row):
    options = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, row["choices"], strict=True))
    return f"{row['question']}\n{options}Answer:"


def prompt(row, *, number_of_shots):
    """The subject's first examples, answered, in front of the question."""
    examples = [example for example in EXAMPLES if example["subject"] == row["subject"]][:number_of_shots]
    assert len(examples) == number_of_shots
    answered = "".join(f"{asked(example)} {LETTERS[example['answer']]}\n\n" for example in examples)
    return heading(row["subject"]) + answered + asked(row)


@torch.no_grad()
def likelihoods(model, tokenizer, text):
    """One plain forward pass of one prompt: the log-likelihood of each letter as the next token."""
    letters = [tokenizer.encode(f" {letter}") for letter in LETTERS]
    assert len({token for (token,) in letters} | {tokenizer.unk_token_id}) == 5
    (logits,) = model(torch.tensor([tokenizer.encode(text)])).logits
    return logits[-1].log_softmax(dim=-1)[[token for (token,) in letters]]


def every_other_right(rows, chosen):
    """Return rows whose right answers are every other of the chosen ones, and the scores that these earn."""
    scores = [float(number % 2) for number in range(len(rows))]
    answers = [int(number + 1 - score) % 4 for number, score in zip(chosen, scores, strict=True)]
    return [{**row, "answer": answer} for row, answer in zip(rows, answers, strict=True)], scores


def test_the_questions_say_something():
    """Two subjects, not in the order of the alphabet and not one after the other, of different sizes."""
    assert sorted(SUBJECTS) != SUBJECTS
    assert ROWS != ORDERED
    counts = [sum(row["subject"] == subject for row in ROWS) for subject in SUBJECTS]
    assert counts == [12, 6]


@pytest.mark.parametrize("number_of_shots", [0, 1, 5])
def test_letters_are_those_of_one_plain_forward_pass_for_each_question(ask, model, tokenizer, number_of_shots):
    prompts = [prompt(row, number_of_shots=number_of_shots) for row in ORDERED]
    chosen = [int(likelihoods(model, tokenizer, text).argmax()) for text in prompts]
    assert len(set(chosen)) > 1
    test, right = every_other_right(ORDERED, chosen)
    answers = ask(test=test, number_of_shots=number_of_shots)
    assert [answer.prompt for answer in answers] == prompts
    assert [answer.response for answer in answers] == [LETTERS[number] for number in chosen]
    assert [answer.score for answer in answers] == right


def test_likelihoods_are_those_of_plain_forward_passes_and_each_question_takes_one(model, tokenizer, monkeypatch):
    expected = torch.stack([likelihoods(model, tokenizer, prompt(row, number_of_shots=1)) for row in ORDERED])
    forward, sizes = model.forward, []
    monkeypatch.setattr(model, "forward", lambda ids, **more: sizes.append(len(ids)) or forward(ids, **more))
    samples = LiveHarness(model, tokenizer, ability(number_of_shots=1).tasks(), limit=None, batch_size=5).ask()
    given = torch.tensor([[likelihood for likelihood, _ in sample["filtered_resps"]] for sample in samples])
    torch.testing.assert_close(given, expected)
    assert sizes == [5, 5, 5, 3]


def test_of_equally_likely_letters_the_first_is_chosen_and_the_right_one_scores(ask, monkeypatch):
    scripted = [(-3, -1, -2, -1), (-2, -2, -2, -2), (-9, -8, -7, -6)]
    expected = ["B", "A", "D"]
    test = [{**row, "answer": answer} for row, answer in zip(ORDERED[:3], (1, 3, 3), strict=True)]
    assert len({row["subject"] for row in test}) == 1
    flat = [(float(value), False) for values in scripted for value in values]
    monkeypatch.setattr(HFLM, "loglikelihood", lambda self, requests, **_: flat)
    answers = ask(test=test)
    assert [answer.response for answer in answers] == expected
    assert [answer.score for answer in answers] == [1, 0, 1]


@pytest.mark.parametrize("limit", [1, 3])
def test_a_limit_takes_the_first_questions_of_each_subject(ask, limit):
    first = [row for s in SUBJECTS for row in [row for row in ROWS if row["subject"] == s][:limit]]
    assert len(first) == 2 * limit
    assert [answer.prompt for answer in ask(limit=limit)] == [prompt(row, number_of_shots=0) for row in first]


def test_a_prepared_task_sees_the_weights_of_the_moment(model, tokenizer):
    ask = ability(number_of_shots=1).prepare(model, tokenizer)
    before = ask()
    name = "model.embed_tokens.weight"
    reference = model.state_dict()[name].clone()
    noise = 20 * torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    with LiveWeights(model, lambda _: reference) as weights:
        weights.write([WeightEdit(name, reference, noise)])
        edited = ask()
        expected = [LETTERS[likelihoods(model, tokenizer, answer.prompt).argmax()] for answer in before]
    assert [answer.response for answer in edited] == expected != [answer.response for answer in before]
    assert ask() == before


@pytest.fixture
def hold_two(model, monkeypatch):
    """Leave the model memory for two questions at once; the value is the sizes of the batches it is asked."""
    forward, sizes = model.forward, []

    def forward_few(ids, **settings):
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(ids, **settings)

    monkeypatch.setattr(model, "forward", forward_few)
    return sizes


def test_batches_that_memory_does_not_hold_are_halved_once_for_all_cells(model, tokenizer, hold_two):
    ask = ability(number_of_shots=1, batch_size=7).prepare(model, tokenizer)
    answers = ask()
    assert hold_two == [7, 3] + [1] * len(ROWS)
    assert ask() == answers
    assert hold_two == [7, 3] + [1] * 2 * len(ROWS)
    assert [answer.prompt for answer in answers] == [prompt(row, number_of_shots=1) for row in ORDERED]
    chosen = [LETTERS[likelihoods(model, tokenizer, answer.prompt).argmax()] for answer in answers]
    assert [answer.response for answer in answers] == chosen


def test_no_room_for_one_question_is_an_error_of_one_line(ask, model, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(UserError, match="expected room for 1 prompt"):
        ask()


def test_no_shots_need_no_examples(ask):
    assert ask(few_shot=[]) == ask()


def test_only_the_tasks_of_the_subjects_are_built_and_they_are_those_of_lm_eval():
    built = ability(number_of_shots=3).tasks()
    assert list(built) == [f"mmlu_{subject}" for subject in SUBJECTS]
    for name, task in built.items():
        template = yaml.safe_load((THEIRS / "_default_template_yaml").read_text())
        theirs = {**template, **yaml.safe_load((THEIRS / f"{name}.yaml").read_text())}
        assert theirs["metadata"]["version"] == 1.0
        own = task.dump_config()
        # What lm-eval has done with a tag, the place of the file or an unnamed field is no part of the protocol.
        same = theirs.keys() - {"tag", "metadata", "include", "fewshot_config"}
        assert {key: own[key] for key in same} == {key: theirs[key] for key in same}
        assert own["fewshot_config"]["sampler"] == theirs["fewshot_config"]["sampler"]
        assert own["num_fewshot"] == 3


GEOGRAPHY = {"subject": "high_school_geography", "question": "Where?", "choices": ["a", "b", "c", "d"], "answer": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"subject": "knots"},
            "general_ability: expected subjects of MMLU as lm-eval spells them, got 'knots'; "
            "correct the column subject of its data set",
        ),
        (
            {"choices": ["a", "b", "c"]},
            "general_ability: expected 4 texts as choices, got ['a', 'b', 'c'] for 'Where?' of high_school_geography; "
            "mend its data set",
        ),
        (
            {"choices": "abcd"},
            "general_ability: expected 4 texts as choices, got 'abcd' for 'Where?' of high_school_geography; "
            "mend its data set",
        ),
        (
            {"choices": ["a", "b", 3, "d"]},
            "general_ability: expected 4 texts as choices, got ['a', 'b', 3, 'd'] for 'Where?' of "
            "high_school_geography; mend its data set",
        ),
        *(
            (
                {"answer": answer},
                f"general_ability: expected a number from 0 to 3 as answer, got {answer!r} for 'Where?' of "
                "high_school_geography; mend its data set",
            )
            for answer in (4, -1, "C", None, True)
        ),
    ],
)
def test_a_row_unlike_those_of_mmlu_is_an_error(change, message):
    for lists in ({"test": [GEOGRAPHY, {**GEOGRAPHY, **change}], "few_shot": []},) + (
        () if "subject" in change else ({"test": [GEOGRAPHY], "few_shot": [{**GEOGRAPHY, **change}]},)
    ):
        with pytest.raises(UserError) as caught:
            ability(**lists).tasks()
        assert str(caught.value) == message


def test_too_few_examples_of_a_subject_are_an_error():
    message = (
        "general_ability: expected 2 worked examples of high_school_geography, got 1; "
        "lower evaluation.general_ability.fewshot or add rows to its fewshot_dataset"
    )
    other = {**GEOGRAPHY, "subject": "miscellaneous"}
    with pytest.raises(UserError) as caught:
        ability(test=[GEOGRAPHY], few_shot=[other, GEOGRAPHY, other], number_of_shots=2).tasks()
    assert str(caught.value) == message


@pytest.mark.slow
def test_every_likelihood_letter_and_score_is_that_of_the_command_line(ask, model, tokenizer, tmp_path):
    chosen = [LETTERS.index(answer.response) for answer in ask(test=ORDERED, number_of_shots=2)]
    test, _ = every_other_right(ORDERED, chosen)
    files = {subject: THEIRS / f"mmlu_{subject}.yaml" for subject in SUBJECTS}
    splits = {
        file: {
            split: [row for row in rows if row["subject"] == subject]
            for split, rows in (("dev", EXAMPLES), ("test", test))
        }
        for subject, file in files.items()
    }
    written = command_line(tmp_path, model=model, tokenizer=tokenizer, tasks=splits, options={"--num_fewshot": 2})
    theirs = [sample for file in splits for sample in written[file]]
    prepared = ability(test=test, number_of_shots=2)
    own = LiveHarness(model, tokenizer, prepared.tasks(), limit=None, batch_size=4).ask()
    logged = [[float(likelihood) for likelihood, _ in sample["filtered_resps"]] for sample in theirs]
    assert [[likelihood for likelihood, _ in sample["filtered_resps"]] for sample in own] == logged
    answers = prepared.prepare(model, tokenizer)()
    assert [answer.prompt for answer in answers] == [s["arguments"]["gen_args_0"]["arg_0"] for s in theirs]
    assert [answer.response for answer in answers] == [LETTERS[values.index(max(values))] for values in logged]
    assert [answer.score for answer in answers] == [sample["acc"] for sample in theirs]
    assert {answer.score for answer in answers} == {0, 1}
