"""Greedy generation gives the same texts however the prompts are batched."""

import pytest
import torch

from safety_spaces.behaviour.generation import generate

MAX_NEW_TOKENS = 13


@torch.inference_mode()
def generate_one(model, tokenizer, prompt):
    """The slow twin: no cache, no padding, no batch, one argmax after another."""
    start = ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    while ids.shape[1] - start.shape[1] < MAX_NEW_TOKENS:
        token = model(input_ids=ids, use_cache=False).logits[0, -1].argmax()
        if token == tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, token.view(1, 1)], dim=1)
    return tokenizer.decode(ids[0, start.shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def expected(model, tokenizer, prompts):
    return [generate_one(model, tokenizer, prompt) for prompt in prompts]


@pytest.mark.parametrize("batch_size", [1, 3, 11, 64])
def test_batches_of_any_size_equal_one_by_one_in_the_order_of_the_prompts(
    model, tokenizer, prompts, expected, batch_size
):
    assert generate(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size) == expected


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


def test_a_response_ends_where_the_text_ends_whatever_its_neighbours_do(make_model, tokenizer, prompts):
    model = make_model(tied=False)
    token = tokenizer(generate_one(model, tokenizer, prompts[0]))["input_ids"][5]
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 1.01 * model.lm_head.weight[token]
    alone = [generate_one(model, tokenizer, prompt) for prompt in prompts]
    assert len({len(tokenizer(text)["input_ids"]) for text in alone}) > 2
    assert generate(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=11) == alone


def test_no_prompts_give_no_responses(model, tokenizer):
    assert generate(model, tokenizer, [], max_new_tokens=3, batch_size=2) == []


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
