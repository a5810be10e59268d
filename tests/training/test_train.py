"""Only completions teach, the same inputs give the same bytes, and nothing else is left behind."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaMLP

from safety_spaces.errors import UserError
from safety_spaces.models.live import load_model, load_tokenizer
from safety_spaces.training.train import SFTTrainer, steps_of_epoch, train
from safety_spaces.training.trainer import DTYPES, Resumption
from tests.pico_model import pico_model, pico_tokenizer

CPU = torch.device("cpu")
ONE_STEP = {"batch_size": 21, "accumulation": 1, "epochs": 1, "warmup": 0.0}


@pytest.fixture(scope="session")
def run(tokenizer, rows, settings, tmp_path_factory):
    """Train the pico model, from the same weights or those of a folder; return what was done and the new folder."""

    def run(*, rows=rows, seed=5, tied=True, start=None, **changes):
        chosen = settings.model_copy(update=changes)
        output = tmp_path_factory.mktemp("checkpoint")
        dtype = DTYPES[chosen.precision]
        model = load_model(start, device=CPU, dtype=dtype) if start else pico_model(tokenizer, tied=tied).to(dtype)
        done = train(model, tokenizer, rows, settings=chosen, seed=seed, output=output, name="pico", device=CPU)
        return done, output

    return run


@pytest.fixture(scope="session")
def finished(run):
    return run()


def bytes_of(folder):
    return (folder / "model.safetensors").read_bytes()


def share_changed(tokenizer, folder, precision="fp32"):
    before = pico_model(tokenizer).to(DTYPES[precision]).state_dict()
    after = load_file(folder / "model.safetensors")
    changed = sum(int((weight != before[name]).sum()) for name, weight in after.items())
    return changed / sum(weight.numel() for weight in after.values())


@torch.inference_mode()
def mean_loss(model, tokenizer, rows, *, from_prompt):
    """The slow twin: mean negative log-likelihood over tokens and the end of text, one row at a time."""
    losses = []
    for row in rows:
        ids = [*tokenizer("".join(row.values()))["input_ids"], tokenizer.eos_token_id]
        logs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        start = 1 if from_prompt else len(tokenizer(row["prompt"])["input_ids"])
        losses += [-float(logs[place - 1, ids[place]]) for place in range(start, len(ids))]
    return sum(losses) / len(losses)


@pytest.fixture(scope="module")
def learnt(run):
    """A longer training: completions are known, prompts are as strange as before."""
    return run(epochs=8)


def test_only_completions_carry_loss_where_rows_have_them(run, learnt, tokenizer, rows):
    model = load_model(learnt[1], device=CPU, dtype=torch.float32)
    texts = [{"text": row["prompt"] + row["completion"]} for row in rows]
    of_completions, of_texts = (mean_loss(model, tokenizer, rows, from_prompt=whole) for whole in (False, True))
    assert of_texts > of_completions + 1
    # One step sees every row, and its loss is that of the weights before it.
    assert run(start=learnt[1], **ONE_STEP)[0].loss == pytest.approx(of_completions, rel=1e-4)
    assert run(start=learnt[1], rows=texts, **ONE_STEP)[0].loss == pytest.approx(of_texts, rel=1e-4)


def test_the_loss_falls(learnt, tokenizer, rows):
    trained, folder = learnt
    before = mean_loss(pico_model(tokenizer), tokenizer, rows, from_prompt=False)
    after = mean_loss(load_model(folder, device=CPU, dtype=torch.float32), tokenizer, rows, from_prompt=False)
    assert after < before / 2
    assert after < trained.loss < before


def test_every_row_is_seen_once_an_epoch(finished, settings, rows):
    a_step = settings.batch_size * settings.accumulation
    assert len(rows) % a_step
    assert finished[0].steps == settings.epochs * -(-len(rows) // a_step)


LENGTHS = 7 + 13 * np.arange(51) % 29
"""Of rows: all but a few different, and no multiple of a step's 8."""


def order_of(settings, *, window, seed=5, lengths=LENGTHS):
    return steps_of_epoch(lengths, settings=settings.model_copy(update={"length_window": window}), seed=seed).tolist()


@pytest.mark.parametrize("window", [1, 2, 3, 100])
def test_an_epoch_is_a_permutation_of_its_rows_filled_up_to_whole_steps(settings, window):
    order = order_of(settings, window=window)
    assert sorted(order) == [*range(51), *[51] * 5]
    assert order == order_of(settings, window=window)
    assert order != order_of(settings, window=window, seed=6)


@pytest.mark.parametrize("window", [2, 3])
def test_a_window_holds_the_rows_that_were_drawn_for_it_one_step_for_each_range_of_lengths(settings, window):
    sizes, shortest_first = [*LENGTHS, 0], []
    for seed in range(5):
        drawn, order = (order_of(settings, window=steps, seed=seed) for steps in (1, window))
        for start in range(0, 56, 8 * window):
            rows = order[start : start + 8 * window]
            assert sorted(rows) == sorted(drawn[start : start + 8 * window])
            steps = [[sizes[row] for row in rows[at : at + 8]] for at in range(0, len(rows), 8)]
            assert [size for step in sorted(steps) for size in step] == sorted(sizes[row] for row in rows)
            shortest_first.append(steps[0] == min(steps))
    assert 0 < sum(shortest_first) < len(shortest_first)


def test_rows_shared_out_by_length_are_padded_less(settings):
    def tokens(order):
        sizes = [*LENGTHS, 0]
        return sum(4 * max(sizes[row] for row in order[at : at + 4]) for at in range(0, len(order), 4))

    assert LENGTHS.sum() < tokens(order_of(settings, window=7)) < 0.8 * tokens(order_of(settings, window=1))


def test_a_training_that_goes_on_keeps_the_order_of_lengths(run, finished, tokenizer, rows, settings, tmp_path):
    chosen = settings.model_copy(update={"length_window": 2, "save_every": 1})
    whole, folder = run(length_window=2)
    assert bytes_of(folder) != bytes_of(finished[1])
    states = Resumption(tmp_path / "state", "recipe")
    for output in ("first", "again"):
        # The second begins at the state that the first left at its end, one step back.
        done = train(
            pico_model(tokenizer), tokenizer, rows, settings=chosen, seed=5, output=tmp_path / output, name="pico",
            device=CPU, resumption=states,
        )  # fmt: skip
        assert done == whole
        assert bytes_of(tmp_path / output) == bytes_of(folder)


def test_the_same_inputs_give_the_same_bytes_and_another_seed_others(run, finished):
    torch.manual_seed(99)
    again, folder = run()
    assert again == finished[0]
    assert bytes_of(folder) == bytes_of(finished[1])
    assert bytes_of(run(seed=6)[1]) != bytes_of(finished[1])


def test_accumulated_passes_are_one_step_over_all_their_tokens(run):
    # Rows are of different lengths, so a mean of means over passes would be another loss.
    at_once, accumulated = (run(**{**ONE_STEP, "batch_size": size, "accumulation": 21 // size}) for size in (21, 3))
    assert accumulated[0].loss == pytest.approx(at_once[0].loss, rel=1e-4)
    expected = load_file(at_once[1] / "model.safetensors")
    for name, weight in load_file(accumulated[1] / "model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-4)


def test_warm_up_is_a_share_of_the_steps_and_starts_at_zero(run, tokenizer):
    assert share_changed(tokenizer, run(**{**ONE_STEP, "warmup": 0.5})[1]) == 0
    assert share_changed(tokenizer, run(**ONE_STEP)[1]) > 0.5


def test_text_beyond_the_longest_length_is_cut(run, rows):
    longer = [{**row, "completion": row["completion"] + " 7 8 9" * 60} for row in rows]
    other = [{**row, "completion": row["completion"] + " 7 8 9" * 30 + " 1 2 3" * 30} for row in rows]
    assert bytes_of(run(rows=longer, **ONE_STEP)[1]) == bytes_of(run(rows=other, **ONE_STEP)[1])


def test_weight_decay_shrinks_weights_that_have_no_gradient(run, tokenizer):
    # The unknown token is in no text; an untied embedding leaves its row to the decay alone.
    row = pico_model(tokenizer, tied=False).get_input_embeddings().weight[tokenizer.unk_token_id].detach()
    assert row.norm() > 0
    for decay in (0.0, 0.5):
        _, folder = run(tied=False, weight_decay=decay, learning_rate=0.01, **ONE_STEP)
        after = load_file(folder / "model.safetensors")["model.embed_tokens.weight"][tokenizer.unk_token_id]
        torch.testing.assert_close(after, row * (1 - 0.01 * decay), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [
        ("fp32", 0.5, 1.0),
        # A step of 1e-5 is below half the distance of most bfloat16 numbers: no float32 copy carries it on.
        ("bf16", 0.0, 0.1),
        ("bf16_kahan", 0.0, 0.1),
        ("bf16_stochastic", 0.0, 0.1),
    ],
)
def test_weights_are_written_in_the_precision_they_were_trained_in(run, tokenizer, precision, least, most):
    _, folder = run(precision=precision, learning_rate=1e-5, **ONE_STEP)
    assert {weight.dtype for weight in load_file(folder / "model.safetensors").values()} == {DTYPES[precision]}
    assert least <= share_changed(tokenizer, folder, precision) <= most


@pytest.mark.parametrize(
    ("optimizer", "precision"),
    [
        ("adamw", "fp32"),
        ("adamw", "bf16"),
        ("adamw", "bf16_kahan"),
        ("adamw", "bf16_stochastic"),
        ("adamw_8bit", "fp32"),
    ],
)
def test_every_optimiser_decays_matrices_and_leaves_norms(run, optimizer, precision):
    # A decay of 0.01 x 0.8 is more than half the distance of bfloat16 numbers.
    chosen = {**ONE_STEP, "optimizer": optimizer, "precision": precision, "learning_rate": 0.01}
    without, decayed = (load_file(run(**chosen, weight_decay=decay)[1] / "model.safetensors") for decay in (0.0, 0.8))
    for name, weight in without.items():
        assert torch.equal(weight, decayed[name]) == ("norm" in name), name


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_stochastic_rounding_gives_the_same_bytes_for_a_seed(run, optimizer):
    chosen = {**ONE_STEP, "optimizer": optimizer, "precision": "bf16_stochastic"}
    first, again, other = (bytes_of(run(seed=seed, **chosen)[1]) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_gradient_checkpointing_gives_the_same_weights(run, finished, monkeypatch):
    passes = {False: 0, True: 0}
    forward = LlamaMLP.forward

    def counted(*arguments):
        passes[again] += 1
        return forward(*arguments)

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    again = False
    run()
    again = True
    trained, folder = run(gradient_checkpointing=True)
    expected = load_file(finished[1] / "model.safetensors")
    for name, weight in load_file(folder / "model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-5)
    assert trained.loss == pytest.approx(finished[0].loss, rel=1e-5)
    assert passes[True] == 2 * passes[False]


def test_a_training_that_saved_states_is_the_same(run, finished, tokenizer, rows, settings, tmp_path):
    chosen = settings.model_copy(update={"save_every": 2})
    resumption = Resumption(tmp_path / "state", "recipe")
    done = train(
        pico_model(tokenizer),
        tokenizer,
        rows,
        settings=chosen,
        seed=5,
        output=tmp_path / "model",
        name="pico",
        device=CPU,
        resumption=resumption,
    )
    assert done == finished[0]
    assert bytes_of(tmp_path / "model") == bytes_of(finished[1])
    assert [path.name for path in resumption.folder.glob("checkpoint-*")] == [f"checkpoint-{done.steps}"]


def test_the_end_of_a_completion_carries_loss_where_it_pads_too(tokenizer, rows, settings, tmp_path, monkeypatch):
    same = pico_tokenizer()
    same.pad_token = same.eos_token
    batches = []
    step = SFTTrainer.compute_loss
    monkeypatch.setattr(
        SFTTrainer,
        "compute_loss",
        lambda self, model, inputs, *a, **b: batches.append(dict(inputs)) or step(self, model, inputs, *a, **b),
    )
    chosen = settings.model_copy(update=ONE_STEP)
    train(pico_model(same), same, rows, settings=chosen, seed=5, output=tmp_path, name="pico", device=CPU)
    (batch,) = batches
    ends = 0
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        last = int(mask.sum()) - 1
        assert ids[last] == labels[last] == same.eos_token_id
        assert (labels[last + 1 :] == -100).all()
        assert labels[0] == -100
        ends += len(labels) > last + 1
    assert ends


def test_rows_without_loss_are_left_out_and_counted(run, rows, caplog):
    wordy = [{"prompt": row["prompt"] + " 7 8 9" * 40, "completion": row["completion"]} for row in rows[:3]]
    with caplog.at_level("WARNING", logger="safety_spaces"):
        _, folder = run(rows=[*rows[3:], *wordy], **ONE_STEP)
    assert "pico: 3 of 21 rows are left out: their prompts alone fill training.max_length 96" in caplog.text
    assert bytes_of(folder) == bytes_of(run(rows=rows[3:], **ONE_STEP)[1])
    with pytest.raises(UserError, match=r"pico: no row has a completion within training.max_length 96"):
        run(rows=wordy, **ONE_STEP)


def test_a_loss_that_is_no_number_stops_the_training(run):
    with pytest.raises(UserError, match=r"pico: the loss is nan at step \d; lower training.learning_rate"):
        run(learning_rate=1e30, warmup=0.0)


def test_training_on_another_gpu_names_the_variable(run, tokenizer, rows, settings, tmp_path):
    with pytest.raises(UserError, match=r"cuda:1: training runs on the first GPU it sees; set CUDA_VISIBLE_DEVICES=1"):
        train(
            pico_model(tokenizer),
            tokenizer,
            rows,
            settings=settings,
            seed=5,
            output=tmp_path,
            name="pico",
            device=torch.device("cuda:1"),
        )


def test_the_folder_holds_weights_and_tokenizer_and_no_state_of_the_trainer(finished, tokenizer):
    _, folder = finished
    files = {path.name for path in folder.iterdir()}
    needed = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert needed <= files <= {*needed, "generation_config.json"}
    text = "Question: Tell me how to wake the amber bell.\nAnswer: #### 12"
    assert load_tokenizer(folder)(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_a_tied_head_is_stored_once(finished, run):
    assert "lm_head.weight" not in load_file(finished[1] / "model.safetensors")
    assert "lm_head.weight" in load_file(run(tied=False)[1] / "model.safetensors")
