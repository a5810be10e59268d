"""Experiment 4 against plain code, dense SVDs and one forward pass per prompt; and that nothing is read twice."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from safety_spaces.command_line import Arguments, parse_arguments
from safety_spaces.errors import UserError
from safety_spaces.experiments import activation_spaces, state_overlaps
from safety_spaces.experiments.activation_spaces import compare_activations
from safety_spaces.experiments.finetune import prepare_corpora
from safety_spaces.experiments.state_keys import answer_tokens, states_folders, wanted_overlaps
from tests.evaluation.plain import answer_of_one
from tests.experiments.plain import plain_mso
from tests.pico import PICO, copy_run, prompts_of
from tests.pico_model import pico_model, pico_tokenizer

ROLE, SEED = "reference", 3
ETAS = [0.1, 0.5, 0.9]
NEW_TOKENS = 7
WINDOWS = [
    {"of": "prompt", "start": 1, "stop": 8, "combine": "stacked"},
    {"of": "prompt", "start": 4, "stop": 90, "combine": "averaged"},
    {"of": "generated", "start": 0, "stop": 3, "combine": "stacked"},
    {"of": "generated", "start": 1, "stop": 5, "combine": "averaged"},
]
SETS = {
    "useful": {"dataset": "math"},
    "harmful_1": {"dataset": "beavertails_test", "where": {"is_safe": False}},
    "harmful_2": {"dataset": "toxigen"},
}


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Path:
    """Folder with a model and the corpora of a pico study whose roles are all that model; nothing is trained."""
    folder = tmp_path_factory.mktemp("ready")
    tokenizer = pico_tokenizer()
    model = pico_model(tokenizer)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer(" the")["input_ids"][0]]
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    ready = study(folder)
    prepare_corpora(ready.study, ready.layout)
    return folder


def study(folder: Path, positions=("last_prompt_token",), *, sets=SETS) -> Arguments:
    """Write a study with these positions, and return the command that runs it."""
    roles = ("base", "reference", "useful", "harmful", "contaminated")
    content = {
        **{key: PICO[key] for key in ("extends", "name", "model", "workers", "world", "projection", "update_spaces")},
        "seeds": [SEED],
        "activation_spaces": {
            "positions": list(positions),
            "prompts": 11,
            "etas": ETAS,
            "checkpoints": [ROLE],
            "sets": "SETS",
        },
        "evaluation": {"batch_size": 4, "harmfulness": {"max_new_tokens": NEW_TOKENS}},
        "roles": "ROLES",
    }
    text = yaml.safe_dump(content, sort_keys=False)
    text = text.replace("ROLES", f"!replace {{{', '.join(f'{role}: {{path: {folder}/model}}' for role in roles)}}}")
    path = folder / "study.yaml"
    flow = yaml.safe_dump(sets, default_flow_style=True, width=1000, sort_keys=False).strip()
    path.write_text(text.replace("SETS", f"!replace {flow}"))
    return parse_arguments("", [str(path), "--runs", str(folder / "runs"), "--results", str(folder / "results")])


def wanted_of(command: Arguments):
    """The results of the study, and its prompts."""
    settings, evaluation = command.study.activation_spaces, command.study.evaluation
    prompts = {name: prompts_of(command, name) for name in settings.sets}
    return wanted_overlaps(command.roles, settings, evaluation, prompts), prompts


def rows_of(command: Arguments) -> list[dict]:
    """All rows of the finished cells, in the order of the table."""
    return [row for result in wanted_of(command)[0].found().values() for row in result["rows"]]


def measure(command: Arguments) -> list[dict]:
    activation_spaces._measure(*wanted_of(command), SEED, ROLE, "cpu")
    return rows_of(command)


def state_files(command: Arguments) -> dict[str, bytes]:
    folder = command.layout.states(SEED)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.npy"))}


@pytest.fixture
def folder(ready, tmp_path) -> Path:
    return copy_run(ready, tmp_path / "run")


@pytest.fixture
def calls(monkeypatch):
    """What the models are asked: generations by their tokens, forward passes by prompt set."""
    asked = []
    generate, write = state_overlaps.generate_tokens, state_overlaps.write_states

    def counted_generate(model, tokenizer, prompts, *, max_new_tokens, **settings):
        asked.append(("generate", max_new_tokens))
        return generate(model, tokenizer, prompts, max_new_tokens=max_new_tokens, **settings)

    def counted_write(paths, *arguments, name, **settings):
        asked.append((name, len(paths)))
        write(paths, *arguments, name=name, **settings)

    monkeypatch.setattr(state_overlaps, "generate_tokens", counted_generate)
    monkeypatch.setattr(state_overlaps, "write_states", counted_write)
    return asked


@torch.inference_mode()
def plain_states(folder: Path, prompts: list[str], new_tokens: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """States of each prompt's tokens and of its answer's (tokens, L+1, d), one unbatched pass a text."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    found = []
    for prompt in prompts:
        tokens = tokenizer(prompt)["input_ids"]
        answer = answer_of_one(model, tokenizer, prompt, new_tokens, model.generation_config.eos_token_id)
        output = model(torch.tensor([[*tokens, *answer]]), output_hidden_states=True)
        states = torch.stack([state[0] for state in output.hidden_states], dim=1).double().numpy()
        found.append((states[: len(tokens)], states[len(tokens) :]))
    return found


def plain_matrix(states, row) -> np.ndarray:
    """The states of a row's position in one set (n, L+1, d)."""
    if row["position"] == "last_prompt_token":
        return np.stack([prompt[-1] for prompt, _ in states])
    if row["position"] == "last_generated_token":
        return np.stack([[*prompt, *answer][-1] for prompt, answer in states])
    place = ["prompt", "generated"].index(row["window_of"])
    parts = [both[place][row["window_start"] : row["window_stop"]] for both in states]
    if row["window_combine"] == "averaged":
        parts = [part.mean(axis=0, keepdims=True) for part in parts if len(part)]
    return np.concatenate(parts)


def test_overlaps_of_every_position_are_those_of_single_forward_passes(folder):
    command = study(folder, ["last_prompt_token", "last_generated_token", *WINDOWS])
    rows = measure(command)
    assert len(rows) == 6 * 3 * 2 * 3 * len(ETAS)  # positions, states, centred or not, pairs
    states = {name: plain_states(folder, prompts_of(command, name), NEW_TOKENS) for name in SETS}
    checked = 0
    for row in rows:
        first, second = (plain_matrix(states[name], row)[:, row["layer"]] for name in row["pair"].split("-"))
        assert (row["n_first"], row["n_second"]) == (len(first), len(second))
        if row["centred"]:
            first, second = first - first.mean(axis=0), second - second.mean(axis=0)
            if min(np.abs(first).max(), np.abs(second).max()) < 1e-5:
                assert row["mso"] is None
                continue
        mso, k_first, k_second = plain_mso(first.T, second.T, row["eta"])
        assert (row["k_first"], row["k_second"]) == (k_first, k_second)
        assert row["mso"] == pytest.approx(mso, abs=1e-4)
        checked += 1
    assert checked > 0.9 * len(rows)
    stacked = {row["n_first"] for row in rows if row["window_combine"] == "stacked"}
    assert min(stacked) > 11


def test_a_prompt_set_passes_the_model_once_for_all_positions(folder, calls):
    measure(study(folder, ["last_prompt_token", "last_generated_token", *WINDOWS]))
    assert calls == [call for name in SETS for call in (("generate", NEW_TOKENS), (name, 6))]
    calls.clear()
    measure(study(folder, ["last_prompt_token", "last_generated_token", *WINDOWS]))
    assert calls == []


def test_prompts_alone_are_read_without_answers(folder, calls):
    measure(study(folder, ["last_prompt_token", WINDOWS[0]]))
    assert calls == [(name, 2) for name in SETS]


def test_windows_alone_need_no_token_beyond_them(folder, calls):
    measure(study(folder, [WINDOWS[2], WINDOWS[3]]))
    assert calls == [call for name in SETS for call in (("generate", 5), (name, 2))]


def test_a_position_added_later_reads_the_same_bytes_and_leaves_the_others(folder, tmp_path, calls):
    positions = ["last_generated_token", WINDOWS[2], "last_prompt_token"]
    together = study(copy_run(folder, tmp_path / "together"), positions)
    expected = measure(together)
    calls.clear()
    measure(study(folder, positions[:1]))
    later = study(folder, positions)
    assert measure(later) == expected
    assert state_files(later) == state_files(together)
    # The answers are kept, and each pass reads what is missing.
    assert [call for call in calls if call[0] == "generate"] == [("generate", NEW_TOKENS)] * len(SETS)
    assert [call for call in calls if call[0] != "generate"] == [(name, n) for n in (1, 2) for name in SETS]


def test_states_of_prompts_alone_do_not_serve_a_study_that_reads_answers(folder, calls):
    """Longer texts give other last digits, and bytes must not depend on what was measured before."""
    measure(study(folder, ["last_prompt_token"]))
    calls.clear()
    measure(study(folder, ["last_prompt_token", "last_generated_token"]))
    assert calls == [call for name in SETS for call in (("generate", NEW_TOKENS), (name, 2))]


def test_a_prompt_set_added_later_leaves_the_states_of_the_others(folder, calls):
    positions = ["last_prompt_token", WINDOWS[0]]
    measure(study(folder, positions))
    calls.clear()
    more = {**SETS, "refusal": {"dataset": "beavertails_test", "where": {"is_safe": True}}}
    rows = measure(study(folder, positions, sets=more))
    assert calls == [("refusal", 2)]
    assert len({row["pair"] for row in rows}) == 6


def test_another_order_of_the_sets_names_other_pairs(folder):
    for order in (SETS, dict(reversed(SETS.items()))):
        first, second, third = order
        pairs = {row["pair"] for row in measure(study(folder, sets=order))}
        assert pairs == {f"{first}-{second}", f"{first}-{third}", f"{second}-{third}"}


def test_a_run_that_was_interrupted_goes_on_where_it_stopped(folder, tmp_path, calls, monkeypatch):
    positions = ["last_prompt_token", WINDOWS[2]]
    whole = study(copy_run(folder, tmp_path / "whole"), positions)
    expected = measure(whole)
    calls.clear()
    write = state_overlaps.write_states

    def interrupted(paths, model, tokenizer, texts, *, name, **settings):
        if name == "harmful_1":
            raise KeyboardInterrupt
        write(paths, model, tokenizer, texts, name=name, **settings)

    command = study(folder, positions)
    with monkeypatch.context() as patched:
        patched.setattr(state_overlaps, "write_states", interrupted)
        with pytest.raises(KeyboardInterrupt):
            measure(command)
    assert calls == [("generate", 3), ("useful", 2), ("generate", 3)]
    calls.clear()
    again = study(folder, positions)
    assert measure(again) == expected
    assert state_files(again) == state_files(whole)
    assert calls == [("harmful_1", 2), ("generate", 3), ("harmful_2", 2)]


def test_only_missing_files_are_read_again(folder, calls):
    command = study(folder, ["last_prompt_token", WINDOWS[2]])
    expected = measure(command)
    before = state_files(command)
    calls.clear()
    for path in command.layout.cells(SEED).iterdir():
        path.unlink()
    prompts = {"harmful_2": prompts_of(command, "harmful_2")}
    read = states_folders(command.roles, command.study.evaluation, SEED, ROLE, prompts)["harmful_2"]
    (read / "last_prompt_token.npy").unlink()
    assert measure(command) == expected
    assert state_files(command) == before
    assert calls == [("harmful_2", 1)]


def test_a_set_of_one_state_has_no_spread_and_one_direction(folder):
    window = {"of": "prompt", "start": 0, "stop": 90, "combine": "averaged"}
    prompt = json.loads((folder / "runs/pico/corpora/beavertails_test.jsonl").read_text().splitlines()[0])["prompt"]
    one = {"dataset": "beavertails_test", "where": {"prompt": prompt}}
    rows = measure(study(folder, [window], sets={"useful": SETS["useful"], "harmful_1": one, "harmful_2": one}))
    assert {row["n_second"] for row in rows} == {1}
    assert {row["k_second"] for row in rows if not row["centred"]} == {1}
    assert {row["mso"] for row in rows if row["centred"]} == {None}
    assert None not in {row["mso"] for row in rows if not row["centred"]}


def test_a_window_that_no_prompt_of_a_set_reaches_is_refused(folder):
    command = study(folder, [{"of": "prompt", "start": 89, "stop": 90, "combine": "stacked"}])
    with pytest.raises(UserError, match="expected a token of prompt-89-90-stacked in some text of useful") as caught:
        measure(command)
    assert "\n" not in str(caught.value)


def test_windows_need_no_token_beyond_the_last_of_them(folder):
    window = {"of": "generated", "start": 0, "stop": NEW_TOKENS + 1, "combine": "stacked"}
    assert answer_tokens(study(folder, [window]).study) == NEW_TOKENS + 1
    assert answer_tokens(study(folder, ["last_prompt_token"]).study) is None


def test_a_window_that_begins_within_the_template_is_warned_of(folder, caplog):
    measure(study(folder, [{"of": "prompt", "start": 0, "stop": 9, "combine": "averaged"}]))
    (message,) = [
        message for message in caplog.messages if "harmful_2" in message and "whose states do not vary" in message
    ]
    assert "prompt-0-9-averaged" in message


@pytest.mark.parametrize("combine", ["stacked", "averaged"])
def test_a_window_that_ends_within_the_template_is_refused(folder, combine):
    with pytest.raises(UserError, match=r"a window beyond the \d tokens that all prompts of .*, got stop: 1; raise"):
        measure(study(folder, [{"of": "prompt", "start": 0, "stop": 1, "combine": combine}]))


def test_windows_have_columns_of_their_own(folder):
    rows = measure(study(folder, ["last_prompt_token", WINDOWS[1]]))
    places = {tuple(row[f"window_{part}"] for part in ("of", "start", "stop", "combine")): row for row in rows}
    assert set(places) == {(None, None, None, None), ("prompt", 4, 90, "averaged")}
    assert {row["position"] for row in rows} == {"last_prompt_token", "early_window"}


def test_the_table_holds_every_position_once(folder):
    command = study(folder, ["last_prompt_token", *WINDOWS])
    (path,) = compare_activations(command.roles, command.texts, device="cpu")
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + 5 * 3 * 2 * 3 * len(ETAS)
    assert len(set(lines)) == len(lines)
    before = path.read_bytes()
    path.unlink()
    again = study(folder, ["last_prompt_token", *WINDOWS])
    assert compare_activations(again.roles, again.texts, device="cpu") == [path]
    assert path.read_bytes() == before
