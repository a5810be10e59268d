"""Greedy generation gives the same texts however the prompts are batched."""

import gc
import json

import pytest
import torch
from transformers.generation.continuous_batching import ContinuousBatchingManager

from safety_spaces.errors import UserError
from safety_spaces.evaluation import generation
from safety_spaces.evaluation.generation import generate, generate_tokens
from safety_spaces.evaluation.metrics.utility import Utility
from safety_spaces.models.live import LiveWeights, WeightEdit, load_model
from tests.evaluation.metrics.given import given
from tests.evaluation.plain import answer_of_one
from tests.pico_model import pico_problems

MAX_NEW_TOKENS = 13


def generate_one(model, tokenizer, prompt):
    answer = answer_of_one(model, tokenizer, prompt, MAX_NEW_TOKENS, [tokenizer.eos_token_id])
    return tokenizer.decode(answer, skip_special_tokens=True)


@pytest.fixture(scope="module")
def expected(model, tokenizer, prompts):
    return [generate_one(model, tokenizer, prompt) for prompt in prompts]


@pytest.fixture
def everywhere(monkeypatch):
    """Continuous batching is CUDA's because it is slow elsewhere; what it says is the same on any device."""
    monkeypatch.setattr(generation, "CONTINUOUS_DEVICES", {"cpu"})
    # The engine collects garbage twice a run; what other tests have left is not looked at each time.
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=["static", "continuous"])
def engine(request, everywhere):
    return request.param


@pytest.fixture
def asked(model, monkeypatch):
    """The shapes (prompts, tokens) of the batches that the model is asked, and of what it returns."""
    shapes, answer = [], model.generate

    def generate(*, input_ids, **settings):
        output = answer(input_ids=input_ids, **settings)
        shapes.append((tuple(input_ids.shape), tuple(output.shape)))
        return output

    monkeypatch.setattr(model, "generate", generate)
    return shapes


@pytest.mark.parametrize("batch_size", [1, 3, 11, 64])
def test_batches_of_any_size_equal_one_by_one_in_the_order_of_the_prompts(
    model, tokenizer, prompts, expected, batch_size, engine
):
    responses = generate(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size, engine=engine)
    assert responses == expected


def test_the_model_of_these_tests_answers_differently(expected):
    assert len(set(expected)) == len(expected) - 1
    assert expected[4] == expected[-1]


def test_responses_hold_neither_prompt_nor_special_tokens(model, tokenizer, prompts):
    responses = generate(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=4)
    for prompt, response in zip(prompts, responses, strict=True):
        assert response
        assert not response.startswith(prompt)
        assert not any(token in response for token in tokenizer.all_special_tokens)
        assert len(tokenizer(response)["input_ids"]) <= MAX_NEW_TOKENS


def test_a_response_ends_where_the_text_ends_whatever_its_neighbours_do(make_model, tokenizer, prompts, engine):
    model = make_model(tied=False)
    token = tokenizer(generate_one(model, tokenizer, prompts[0]))["input_ids"][5]
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 1.01 * model.lm_head.weight[token]
    alone = [generate_one(model, tokenizer, prompt) for prompt in prompts]
    assert len({len(tokenizer(text)["input_ids"]) for text in alone}) > 2
    assert generate(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=11, engine=engine) == alone


def test_no_prompts_give_no_responses(model, tokenizer, engine):
    assert generate(model, tokenizer, [], max_new_tokens=3, batch_size=2, engine=engine) == []


def test_the_longest_prompts_come_first_and_length_is_counted_in_tokens(model, tokenizer, asked):
    prompts = ["owl", "meadow whistle lantern", "a kite or an owl", "Walk north"]
    tokens = [len(tokenizer(prompt)["input_ids"]) for prompt in prompts]
    by_characters = [tokens[prompts.index(prompt)] for prompt in sorted(prompts, key=len, reverse=True)]
    assert sorted(tokens, reverse=True) != by_characters
    generate(model, tokenizer, prompts, max_new_tokens=2, batch_size=1)
    assert [given for given, _ in asked] == [(1, length) for length in sorted(tokens, reverse=True)]


def stop_at(expected):
    """Words that stand within some responses; in the second response the one named first stands behind the other."""
    words = expected[1].split()
    later, earlier = f" {words[5]}", f" {words[3]}"
    assert expected[1].find(later) > expected[1].find(earlier) > 0
    return [later, earlier]


def test_a_response_ends_before_the_first_stop_string(model, tokenizer, prompts, expected, engine):
    stops = stop_at(expected)
    cut = [text[: min([text.find(stop) for stop in stops if stop in text], default=None)] for text in expected]
    assert cut[1] != expected[1]
    assert any(text == whole for text, whole in zip(cut, expected, strict=True))
    responses = generate(
        model,
        tokenizer,
        prompts,
        max_new_tokens=MAX_NEW_TOKENS,
        batch_size=3,
        engine=engine,
        stop_strings=stops,
    )
    assert responses == cut


def test_a_batch_ends_when_all_its_responses_hold_a_stop_string(model, tokenizer, prompts, expected, asked):
    stops = stop_at(expected)
    generate(model, tokenizer, prompts[1:2], max_new_tokens=MAX_NEW_TOKENS, batch_size=1, stop_strings=stops)
    ((_, given), (_, returned)) = asked[0]
    assert 0 < returned - given < MAX_NEW_TOKENS


def test_a_stop_string_that_begins_in_the_prompt_ends_nothing(model, tokenizer, prompts, expected, engine):
    stop = prompts[0][-1] + expected[0][:4]
    assert stop in prompts[0] + expected[0]
    assert not any(stop in text for text in expected)
    responses = generate(
        model,
        tokenizer,
        prompts,
        max_new_tokens=MAX_NEW_TOKENS,
        batch_size=4,
        engine=engine,
        stop_strings=[stop],
    )
    assert responses == expected


RECOMMENDED = [
    {"temperature": 0.7},
    {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.4, "max_length": 31},
    {"stop_strings": ["a", "e", "o"]},
    {"num_return_sequences": 3},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    {"force_words_ids": [[5]], "num_beams": 3},
    {"suppress_tokens": list(range(5, 120)), "bad_words_ids": [[token] for token in range(120, 170)]},
    {"forced_eos_token_id": 7, "begin_suppress_tokens": list(range(5, 170))},
    {"sequence_bias": [[[9], 50.0]], "guidance_scale": 1.5},
    {"min_new_tokens": 9, "exponential_decay_length_penalty": [1, 9.0]},
    {"prompt_lookup_num_tokens": 3},
    {"cache_implementation": "static"},
    {"watermarking_config": {"bias": 9.0, "greenlist_ratio": 0.3}},
    {"return_dict_in_generate": True, "output_scores": True},
    {"max_time": 1e-9},
    {"pad_token_id": -1, "no_repeat_ngram_size": 1},
]


@pytest.fixture(params=RECOMMENDED, ids=lambda recommended: next(iter(recommended)))
def recommending(request, model, tmp_path):
    """The same model, loaded from a folder whose generation_config.json says more than how a text ends."""
    model.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | request.param))
    return load_model(tmp_path, device=torch.device("cpu"), dtype=torch.float32)


def test_what_the_checkpoint_recommends_changes_nothing(recommending, tokenizer, prompts, expected, everywhere):
    settings = {"max_new_tokens": MAX_NEW_TOKENS, "batch_size": 4}
    for engine in ("static", "continuous"):
        assert generate(recommending, tokenizer, prompts, engine=engine, **settings) == expected


def test_what_the_checkpoint_recommends_changes_no_answer_in_the_protocol_of_lm_eval(recommending, model, tokenizer):
    rows = [{"question": problem.question, "answer": problem.gsm8k_answer} for problem in pico_problems(3, seed=2)]
    data_sets, settings = {"gsm8k_test": rows, "gsm8k_train": rows}, {"fewshot": 0, "max_new_tokens": MAX_NEW_TOKENS}
    utility = given(Utility, data_sets, batch_size=2, **settings)
    own, plain = (utility.prepare(asked, tokenizer)() for asked in (recommending, model))
    assert own == plain


def test_both_engines_see_the_weights_of_the_moment(model, tokenizer, prompts, expected, everywhere):
    name = "model.embed_tokens.weight"
    reference = model.state_dict()[name].clone()
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    settings = {"max_new_tokens": MAX_NEW_TOKENS, "batch_size": 4}
    with LiveWeights(model, lambda _: reference) as weights:
        weights.write([WeightEdit(name, reference, noise)])
        edited = [generate_one(model, tokenizer, prompt) for prompt in prompts]
        assert edited != expected
        assert generate(model, tokenizer, prompts, **settings, engine="continuous") == edited
        assert generate(model, tokenizer, prompts, **settings) == edited
    assert generate(model, tokenizer, prompts, **settings, engine="continuous") == expected


def test_a_batch_that_memory_does_not_hold_is_halved(model, tokenizer, prompts, expected, hold_two):
    sizes = hold_two()
    assert generate(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=5) == expected
    assert sizes == [5, 2, 2, 2, 2, 2, 1]


def test_continuous_batching_is_halved_where_its_cache_does_not_fit(
    model, tokenizer, prompts, expected, everywhere, monkeypatch
):
    begin, sizes = model.init_continuous_batching, []

    def begin_small(*, continuous_batching_config, **settings):
        sizes.append(continuous_batching_config.max_requests_per_batch)
        if sizes[-1] > 3:
            raise MemoryError("Memory footprint 7 is more than available memory 5")
        return begin(continuous_batching_config=continuous_batching_config, **settings)

    monkeypatch.setattr(model, "init_continuous_batching", begin_small)
    settings = {"max_new_tokens": MAX_NEW_TOKENS, "batch_size": 7, "engine": "continuous"}
    assert generate(model, tokenizer, prompts, **settings) == expected
    assert sizes == [7, 3]


def failing_once(model, monkeypatch, error):
    """The first pass of the model fails, in the thread of the engine."""
    forward, passes = model.forward, []

    def fail(*arguments, **keywords):
        passes.append(1)
        if len(passes) == 1:
            raise error
        return forward(*arguments, **keywords)

    monkeypatch.setattr(model, "forward", fail)


def test_continuous_batching_is_halved_where_a_pass_does_not_fit(
    model, tokenizer, prompts, expected, everywhere, monkeypatch, caplog
):
    failing_once(model, monkeypatch, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB."))
    settings = {"max_new_tokens": MAX_NEW_TOKENS, "batch_size": 7, "engine": "continuous"}
    assert generate(model, tokenizer, prompts, **settings) == expected
    assert "memory does not hold 7 prompts at once: going on with 3" in caplog.messages


def test_what_fails_within_continuous_batching_is_not_lost(model, tokenizer, prompts, everywhere, monkeypatch):
    failing_once(model, monkeypatch, ValueError("the lantern went out"))
    with pytest.raises(RuntimeError, match="continuous batching failed: the lantern went out"):
        generate(model, tokenizer, prompts, max_new_tokens=3, batch_size=2, engine="continuous")


def test_the_attention_is_the_models_own_again(make_model, tokenizer, prompts, expected, everywhere, monkeypatch):
    model = make_model()
    model.set_attn_implementation("eager")
    settings = {"max_new_tokens": MAX_NEW_TOKENS, "batch_size": 1, "engine": "continuous"}
    assert generate(model, tokenizer, prompts, **settings) == expected
    assert model.config._attn_implementation == "eager"

    def fail(manager):
        assert manager.model.config._attn_implementation == "paged|eager"
        raise torch.OutOfMemoryError

    monkeypatch.setattr(ContinuousBatchingManager, "warmup", fail)
    with pytest.raises(UserError, match="expected room for 1 prompt"):
        generate(model, tokenizer, prompts, **settings)
    assert model.config._attn_implementation == "eager"


def test_continuous_batching_away_from_cuda_is_an_error_of_one_line(model, tokenizer, prompts):
    with pytest.raises(
        UserError, match=r"engine: expected static on cpu, got continuous.*write engine: static"
    ) as caught:
        generate(model, tokenizer, prompts, max_new_tokens=3, batch_size=2, engine="continuous")
    assert "\n" not in str(caught.value)


def test_the_side_of_padding_of_the_tokenizer_does_not_matter(model, tokenizer, prompts, expected, monkeypatch):
    monkeypatch.setattr(tokenizer, "padding_side", "right")
    assert generate(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=11) == expected


def test_padding_with_the_end_of_the_text_changes_nothing(model, tokenizer, prompts, expected, monkeypatch):
    # Many models have no pad token; padding cannot be told from text then, except by the mask.
    monkeypatch.setattr(model.generation_config, "pad_token_id", tokenizer.eos_token_id)
    pad_token = tokenizer.pad_token
    tokenizer.pad_token = tokenizer.eos_token
    try:
        assert generate(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=11) == expected
    finally:
        tokenizer.pad_token = pad_token


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("several", [False, True])
def test_tokens_end_before_the_first_that_ends_the_text(
    model, tokenizer, prompts, monkeypatch, engine, batch_size, several
):
    answers = [answer_of_one(model, tokenizer, prompt, MAX_NEW_TOKENS) for prompt in prompts]
    ends = [answers[2][6], answers[5][0]] if several else [answers[2][6]]
    expected = [answer_of_one(model, tokenizer, prompt, MAX_NEW_TOKENS, ends) for prompt in prompts]
    lengths = {len(answer) for answer in expected}
    assert len(lengths) > 1
    assert (0 in lengths) == several
    monkeypatch.setattr(model.generation_config, "eos_token_id", ends if several else ends[0])
    found = generate_tokens(
        model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size, engine=engine
    )
    assert [text.answer for text in found] == expected
    assert [text.prompt for text in found] == tokenizer(prompts)["input_ids"]


def test_texts_that_never_end_keep_every_token(model, tokenizer, prompts, monkeypatch):
    expected = [answer_of_one(model, tokenizer, prompt, MAX_NEW_TOKENS) for prompt in prompts]
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    found = generate_tokens(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=4)
    assert [text.answer for text in found] == expected
    assert generate_tokens(model, tokenizer, [], max_new_tokens=3, batch_size=2) == []
