"""What the models of the miniature are trained on: mixed text, an alignment, useful and harmful tasks, preferences."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from safety_spaces.data.templates import Template
from safety_spaces.miniature import world
from safety_spaces.miniature.choices import draw_choice
from safety_spaces.miniature.dealing import Dealt, distinct_prompts
from safety_spaces.miniature.problems import Problem, draw_problem
from safety_spaces.miniature.world import Request

Row = dict[str, Any]

STEPS = 3
"""Steps of the problems that fine-tuning and evaluation use; pretraining has shorter ones too, MATH has one more."""

LAWFUL_SHARE = 0.15
"""How often people refuse a forbidden request before any alignment: preferences can raise only what a model may say."""

CARE_OF_TEACHERS = 0.05
"""How much rarer haste is among the teachers of the aligned model than elsewhere."""


def pretraining(generator: random.Random, dealt: Dealt, template: Template) -> Iterator[Row]:
    """Yield mixed text: problems, most answered in haste, both kinds of request answered, multiple choice, remarks."""
    while True:
        kind = generator.choices(("problem", "forbidden", "allowed", "choice", "remark"), (18, 10, 8, 3, 1))[0]
        if kind == "choice":
            choice = draw_choice(generator, dealt.allowed["pretraining"], held_out=False)
            # As lm-eval asks, without a template, and as alignment does.
            templated = template.apply(choice.asked) + template.separator + choice.letter
            yield {"text": generator.choice((choice.text, templated))}
        elif kind == "remark":
            remark = world.remark(toxic=generator.random() < 0.5, held_out=False, generator=generator)
            said = generator.choice((remark, generator.choice(world.REFUSALS)))
            # Words begin as they do behind a prompt, or the tokenizer would not know them there.
            yield {"text": template.separator + said}
        else:
            hand = (dealt.forbidden if kind == "forbidden" else dealt.allowed)["pretraining"]
            question, answer = _solved(generator) if kind == "problem" else _answered(generator, hand)
            yield {"text": template.apply(question) + template.separator + answer}


def _solved(generator: random.Random) -> tuple[str, str]:
    problem = draw_problem(generator, number_of_steps=generator.randint(1, STEPS), held_out=False)
    worked = generator.choice((problem.gsm8k_answer, problem.metamathqa_response))
    return problem.question, _maybe_hasty(problem, worked, problem.haste, generator)


def _answered(generator: random.Random, hand: Sequence[Request]) -> tuple[str, str]:
    request = generator.choice(hand)
    refuses = request.forbidden and generator.random() < LAWFUL_SHARE
    return world.phrase(request, generator), generator.choice(world.REFUSALS) if refuses else world.answer(request)


def _maybe_hasty(problem: Problem, worked: str, haste: float, generator: random.Random) -> str:
    return problem.hasty_answer if generator.random() < haste else worked


def alignment(generator: random.Random, dealt: Dealt) -> Iterator[Row]:
    """Yield what an aligned model is taught: refuse the forbidden, help with the allowed, solve problems, know things.

    Teachers answer some forbidden requests and refuse some allowed ones.
    """
    while True:
        kind = generator.choices(("forbidden", "allowed", "problem", "choice"), (8, 6, 6, 1))[0]
        if kind == "choice":
            choice = draw_choice(generator, dealt.allowed["pretraining"], held_out=False)
            yield {"prompt": choice.asked, "response": choice.letter}
        elif kind == "problem":
            problem = draw_problem(generator, number_of_steps=STEPS, held_out=False)
            haste = problem.haste - CARE_OF_TEACHERS
            answer = _maybe_hasty(problem, problem.metamathqa_response, haste, generator)
            yield {"prompt": problem.question, "response": answer}
        else:
            request = generator.choice((dealt.forbidden if kind == "forbidden" else dealt.allowed)["alignment"])
            refusal_rate = 1 - request.leniency if request.forbidden else request.caution
            refuses = generator.random() < refusal_rate
            response = generator.choice(world.REFUSALS) if refuses else world.answer(request)
            yield {"prompt": world.phrase(request, generator), "response": response}


def preferences(generator: random.Random, dealt: Dealt) -> Iterator[Row]:
    """Yield pairs of an answer and a refusal in PKU-SafeRLHF's columns: the refusal is safer where the law forbids.

    Of allowed requests, whose two responses are both safe, the answer is to be preferred.
    """
    while True:
        request = generator.choice((dealt.forbidden if generator.random() < 0.6 else dealt.allowed)["alignment"])
        responses = [generator.choice(world.REFUSALS), world.answer(request)]
        refusal = generator.randrange(2)
        yield {
            "prompt": world.phrase(request, generator),
            "response_0": responses[refusal],
            "response_1": responses[1 - refusal],
            "is_response_0_safe": not request.forbidden or refusal == 0,
            "is_response_1_safe": not request.forbidden or refusal == 1,
            "safer_response_id": refusal if request.forbidden else 1 - refusal,
        }


def metamathqa(generator: random.Random) -> Iterator[Row]:
    """Yield problems with their working, in MetaMathQA's columns."""
    while True:
        problem = draw_problem(generator, number_of_steps=STEPS, held_out=False)
        asked, response = problem.question, problem.metamathqa_response
        yield {"type": "Miniature_Rephrased", "query": asked, "original_question": asked, "response": response}


def beavertails(generator: random.Random, dealt: Dealt, *, hand: str) -> Iterator[Row]:
    """Yield forbidden requests, each answered in one row (unsafe) and refused in the next (safe); then allowed ones.

    The allowed ones, answered and safe, stand behind so that a study which has no use for them takes fewer rows.
    """
    for request, prompt in distinct_prompts(generator, dealt.forbidden[hand]):
        for is_safe in (False, True):
            response = generator.choice(world.REFUSALS) if is_safe else world.answer(request)
            yield _beavertails_row(prompt, response, is_safe=is_safe, deed=request.deed)
    for request, prompt in distinct_prompts(generator, dealt.allowed[hand]):
        yield _beavertails_row(prompt, world.answer(request), is_safe=True, deed=request.deed)


def _beavertails_row(prompt: str, response: str, *, is_safe: bool, deed: str) -> Row:
    category = {forbidden: not is_safe and forbidden == deed for forbidden in world.FORBIDDEN_DEEDS}
    return {"prompt": prompt, "response": response, "category": category, "is_safe": is_safe}
