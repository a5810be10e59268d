"""States are those of the named tokens, whatever stands beside them in the batch and whatever else is read."""

import numpy as np
import pytest
import torch

from safety_spaces.errors import UserError
from safety_spaces.evaluation.generation import Tokens, generate_tokens
from safety_spaces.evaluation.states import number_of_states, write_states
from safety_spaces.study import SingleToken, TokenWindow
from tests.evaluation.plain import answer_of_one

MAX_NEW_TOKENS = 9
WINDOWS = [
    TokenWindow(of=of, start=start, stop=stop, combine=combine)
    for of, start, stop in (("prompt", 0, 3), ("prompt", 4, 70), ("generated", 0, 4), ("generated", 2, 90))
    for combine in ("stacked", "averaged")
]
POSITIONS = (SingleToken.last_prompt_token, SingleToken.last_generated_token, *WINDOWS)


@pytest.fixture(scope="module")
def texts(prompts):
    """Prompts of very different lengths; not in the order of their lengths."""
    return [prompts[0], "owl", *prompts[1:6], " ".join(prompts[:3])]


@pytest.fixture(scope="module")
def ending(make_model, tokenizer, texts):
    """A model whose answers end at once, in the middle or never, and the tokens of each text by plain code."""
    model = make_model(tied=False)
    first, second = (answer_of_one(model, tokenizer, texts[index], MAX_NEW_TOKENS) for index in (3, 0))
    ends = [first[0], second[4]]
    model.generation_config.eos_token_id = ends
    found = [
        Tokens(tokenizer(text)["input_ids"], answer_of_one(model, tokenizer, text, MAX_NEW_TOKENS, ends))
        for text in texts
    ]
    lengths = {len(text.answer) for text in found}
    assert {0, MAX_NEW_TOKENS} < lengths, "an answer ends at once, one never, and one between"
    return model, found


@torch.inference_mode()
def plain_states(model, text):
    """The slow twin: one text without padding, the states of all its tokens (tokens, L+1, d)."""
    output = model(torch.tensor([[*text.prompt, *text.answer]]), output_hidden_states=True)
    return torch.stack([state[0] for state in output.hidden_states], dim=1).numpy()


def plain(model, text, position):
    states = plain_states(model, text)
    prompt, answer = states[: len(text.prompt)], states[len(text.prompt) :]
    if position == "last_prompt_token":
        return prompt[-1:]
    if position == "last_generated_token":
        return answer[-1:] if len(answer) else prompt[-1:]
    tokens = {"prompt": prompt, "generated": answer}[position.of][position.start : position.stop]
    if position.combine == "averaged" and len(tokens):
        return tokens.mean(axis=0, keepdims=True)
    return tokens


@pytest.fixture
def write(tmp_path, tokenizer):
    def write(model, texts, positions=POSITIONS, *, batch_size=3, name="useful"):
        paths = {position: tmp_path / "states" / f"{position.name}.npy" for position in positions}
        write_states(paths, model, tokenizer, texts, batch_size=batch_size, name=name)
        return {position: np.array(np.load(path)) for position, path in paths.items()}

    return write


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)


@pytest.fixture
def passes(monkeypatch):
    """A function that counts the forward passes of a model by the number of texts of each."""

    def count(model):
        forward, sizes = model.base_model.forward, []

        def counted(*, input_ids, **keywords):
            sizes.append(len(input_ids))
            return forward(input_ids=input_ids, **keywords)

        monkeypatch.setattr(model.base_model, "forward", counted)
        return sizes

    return count


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_states_of_every_position_equal_single_unpadded_passes(
    write, ending, tokenizer, texts, monkeypatch, passes, batch_size, side
):
    model, expected = ending
    monkeypatch.setattr(tokenizer, "padding_side", side)
    answered = generate_tokens(model, tokenizer, texts, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size)
    assert answered == expected
    sizes = passes(model)
    states = write(model, answered, batch_size=batch_size)
    assert sum(sizes) == len(texts)
    assert max(sizes) == min(batch_size, len(texts))
    for position in POSITIONS:
        found = states[position]
        assert found.dtype == np.float32
        assert_close(found, np.concatenate([plain(model, text, position) for text in expected]))


def test_stacked_windows_count_tokens_and_averaged_ones_texts(write, ending):
    model, texts = ending
    states = {position.name: len(found) for position, found in write(model, texts).items()}
    lengths = [len(text.answer) for text in texts]
    assert states["generated-0-4-stacked"] == sum(min(length, 4) for length in lengths)
    assert states["generated-0-4-averaged"] == sum(length > 0 for length in lengths) < len(texts)
    assert states["generated-2-90-stacked"] == sum(max(length - 2, 0) for length in lengths)
    assert states["last_generated_token"] == len(texts)


def test_windows_read_the_same_states_from_longer_answers(write, ending):
    model, texts = ending
    window = WINDOWS[4]
    cut = [Tokens(text.prompt, text.answer[: window.stop]) for text in texts]
    assert cut != texts
    assert_close(write(model, cut, [window])[window], write(model, texts, [window])[window])


@torch.inference_mode()
def test_state_zero_is_the_embedding_and_the_last_follows_the_last_norm(write, model, tokenizer, texts):
    asked = [Tokens(tokenizer(text)["input_ids"], []) for text in texts]
    for row, text in zip(write(model, asked, [POSITIONS[0]])[POSITIONS[0]], asked, strict=True):
        np.testing.assert_array_equal(row[0], model.model.embed_tokens.weight[text.prompt[-1]])
        last = model.model(input_ids=torch.tensor([text.prompt])).last_hidden_state
        assert_close(row[-1], last[0, -1].numpy())


def test_last_column_reads_the_pad_of_short_prompts(write, model, tokenizer, texts):
    asked = [Tokens(tokenizer(text)["input_ids"], []) for text in texts]
    states = write(model, asked, [SingleToken.last_column], batch_size=len(asked))["last_column"]
    lengths = np.array([len(text.prompt) for text in asked])
    pad = model.get_input_embeddings().weight[tokenizer.pad_token_id].detach().numpy()
    np.testing.assert_array_equal((states[:, 0] == pad).all(axis=1), lengths < lengths.max())
    assert_close(states[lengths.argmax()], plain_states(model, asked[int(lengths.argmax())])[-1])


def test_which_positions_are_asked_for_changes_no_byte(write, ending):
    model, texts = ending
    together = write(model, texts)
    for position in POSITIONS:
        np.testing.assert_array_equal(write(model, texts, [position])[position], together[position])


def test_files_appear_only_when_all_are_complete(write, ending, tmp_path, monkeypatch):
    model, texts = ending
    forward, calls = model.base_model.forward, []

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return forward(*arguments, **keywords)

    monkeypatch.setattr(model.base_model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(model, texts)
    assert len(calls) == 2
    assert not list(tmp_path.rglob("*.npy"))
    monkeypatch.undo()
    states = write(model, texts)
    names = {path.name for path in (tmp_path / "states").iterdir()}
    assert names == {f"{position.name}.npy" for position in POSITIONS}
    for position, found in write(model, texts).items():
        np.testing.assert_array_equal(found, states[position])


def test_a_batch_that_memory_does_not_hold_is_halved(write, ending, monkeypatch):
    model, texts = ending
    expected, forward, sizes = write(model, texts, batch_size=2), model.base_model.forward, []

    def forward_few(*, input_ids, **keywords):
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(input_ids=input_ids, **keywords)

    monkeypatch.setattr(model.base_model, "forward", forward_few)
    found = write(model, texts, batch_size=4)
    for position in POSITIONS:
        np.testing.assert_array_equal(found[position], expected[position])
    assert sizes == [4, 2, 2, 2, 2]


def test_bfloat16_states_are_averaged_and_written_as_float32(write, make_model, tokenizer, texts):
    asked = [Tokens(tokenizer(text)["input_ids"], []) for text in texts]
    stacked, averaged = WINDOWS[:2]
    states = write(make_model(dtype=torch.bfloat16), asked, [stacked, averaged])
    assert states[averaged].dtype == np.float32
    np.testing.assert_allclose(states[averaged][0], states[stacked][: stacked.stop].mean(axis=0), rtol=1e-6)
    assert not torch.equal(
        *(torch.tensor(states[averaged]).to(dtype).float() for dtype in (torch.bfloat16, torch.float32))
    )


def test_a_window_that_no_text_reaches_is_refused(write, ending, tmp_path):
    model, texts = ending
    window = TokenWindow(of="generated", start=MAX_NEW_TOKENS, stop=90, combine="averaged")
    with pytest.raises(
        UserError, match="expected a token of generated-9-90-averaged in some text of harmful_1"
    ) as caught:
        write(model, texts, [POSITIONS[0], window], name="harmful_1")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "states").exists()


def test_a_prompt_without_tokens_is_refused(write, model):
    with pytest.raises(UserError, match="useful: expected prompts of at least one token, got none in prompt 1"):
        write(model, [Tokens([5], []), Tokens([], [])], POSITIONS[:1])


LONG, SHORT, SILENT = Tokens([1, 2, 3, 4, 5], [6, 7, 8]), Tokens([1, 2], [3]), Tokens([1, 2, 3], [])


def window(of, start, stop, combine="stacked"):
    return TokenWindow(of=of, start=start, stop=stop, combine=combine)


@pytest.mark.parametrize(
    ("position", "number"),
    [
        (SingleToken.last_prompt_token, 3),
        (SingleToken.last_generated_token, 3),
        (SingleToken.last_column, 3),
        (window("prompt", 0, 3), 8),
        (window("prompt", 0, 3, "averaged"), 3),
        (window("prompt", 2, 9), 4),
        (window("prompt", 2, 9, "averaged"), 2),
        (window("generated", 1, 3), 2),
        (window("generated", 1, 3, "averaged"), 1),
        (window("generated", 3, 4, "averaged"), 0),
    ],
)
def test_every_token_is_a_state_or_every_text_that_has_one(position, number):
    assert number_of_states(position, [LONG, SHORT, SILENT]) == number
