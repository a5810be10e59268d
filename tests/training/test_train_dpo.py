"""The loss is that of the formula with the start as reference, and only responses and their ends count."""

import math
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file

from safety_spaces.errors import UserError
from safety_spaces.models.live import load_model
from safety_spaces.training.train import DPOTrainer, train
from safety_spaces.training.trainer import DTYPES
from tests.pico_model import pico_model, pico_tokenizer

CPU = torch.device("cpu")
BETA = 0.3
# One step sees every pair, so its loss is that of the weights before it.
WHOLE = {"batch_size": 21, "accumulation": 1, "epochs": 1, "warmup": 0.0, "schedule": "constant", "learning_rate": 1e-3}


@pytest.fixture(scope="session")
def run(tokenizer, pairs, settings, tmp_path_factory):
    """Train the pico model on pairs; return what was done and the new folder."""

    def run(*, rows=pairs, seed=5, beta=BETA, tokenizer=tokenizer, **changes):
        chosen = settings.model_copy(update={**WHOLE, **changes})
        output = tmp_path_factory.mktemp("checkpoint")
        model = pico_model(tokenizer).to(DTYPES[chosen.precision])
        done = train(
            model,
            tokenizer,
            rows,
            beta=beta,
            settings=chosen,
            seed=seed,
            output=output,
            name="pico",
            device=CPU,
        )
        return done, output

    return run


@pytest.fixture(scope="module")
def one_step(run):
    return run()


def bytes_of(folder):
    return (folder / "model.safetensors").read_bytes()


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def model_of(folder):
    return load_model(folder, device=CPU, dtype=torch.float32)


@torch.inference_mode()
def log_probability(model, tokenizer, prompt, response):
    """Sum over the tokens of a response and the end of text, in float64."""
    ids = [*tokenizer(prompt + response)["input_ids"], tokenizer.eos_token_id]
    logs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(float(logs[place - 1, ids[place]]) for place in range(len(tokenizer(prompt)["input_ids"]), len(ids)))


def margins(policy, reference, tokenizer, pairs):
    """The slow twin: r(chosen) - r(rejected) of every pair, one text at a time."""
    policy, reference = (deepcopy(model).double() for model in (policy, reference))
    r = {
        kind: [
            log_probability(policy, tokenizer, pair["prompt"], pair[kind])
            - log_probability(reference, tokenizer, pair["prompt"], pair[kind])
            for pair in pairs
        ]
        for kind in ("chosen", "rejected")
    }
    return [chosen - rejected for chosen, rejected in zip(r["chosen"], r["rejected"], strict=True)]


def mean_loss(margins, beta):
    return sum(math.log1p(math.exp(-beta * margin)) for margin in margins) / len(margins)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_loss_is_that_of_a_coin(run, precision):
    assert run(precision=precision)[0].loss == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("beta", [0.1, 0.9])
def test_the_loss_is_the_formula_with_the_start_as_reference(run, tokenizer, pairs, beta):
    after_one = run(beta=beta)[1]
    expected = mean_loss(margins(model_of(after_one), pico_model(tokenizer), tokenizer, pairs), beta)
    assert abs(expected - math.log(2)) > 0.05
    # The mean over two steps, of which the first is that of a coin.
    second = 2 * run(beta=beta, epochs=2)[0].loss - math.log(2)
    assert second == pytest.approx(expected, rel=1e-4)


def test_the_loss_falls_and_the_margins_grow(run, one_step, tokenizer, pairs):
    done, folder = run(epochs=6)
    assert done.steps == 6
    assert done.loss < math.log(2)
    start = pico_model(tokenizer)
    early, late = (margins(model_of(trained), start, tokenizer, pairs) for trained in (one_step[1], folder))
    assert 0 < sum(early) < sum(late)
    assert mean_loss(late, BETA) < mean_loss(early, BETA) < math.log(2)


def test_the_reference_is_a_frozen_copy_of_the_start(run, tokenizer, monkeypatch):
    trainers = []
    step = DPOTrainer.train
    monkeypatch.setattr(DPOTrainer, "train", lambda self, **options: trainers.append(self) or step(self, **options))
    _, folder = run(epochs=2)
    (trainer,) = trainers
    reference, start = trainer.ref_model, pico_model(tokenizer)
    assert not reference.training
    assert not any(weight.requires_grad for weight in reference.parameters())
    assert reference.state_dict().keys() == start.state_dict().keys()
    for name, weight in start.state_dict().items():
        assert torch.equal(reference.state_dict()[name], weight), name
    assert any(not torch.equal(start.state_dict()[name], weight) for name, weight in weights_of(folder).items())


def test_only_responses_and_their_ends_count_where_the_end_pads_too(run, pairs, monkeypatch):
    same = pico_tokenizer()
    same.pad_token = same.eos_token
    batches = []
    step = DPOTrainer.compute_loss
    monkeypatch.setattr(
        DPOTrainer,
        "compute_loss",
        lambda self, model, inputs, *a, **b: batches.append(dict(inputs)) or step(self, model, inputs, *a, **b),
    )
    run(tokenizer=same)
    (batch,) = batches
    counted = set()
    padded = 0
    for ids, mask, counts in zip(batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True):
        length = int(mask.sum())
        assert ids[length - 1] == same.eos_token_id
        assert counts.sum() == counts[length - int(counts.sum()) : length].sum()
        assert 1 < counts.sum() < length
        counted.add(same.decode(ids[:length][counts[:length] == 1]))
        padded += len(ids) > length
    assert counted == {pair[kind] + same.eos_token for pair in pairs for kind in ("chosen", "rejected")}
    assert padded


def test_the_same_inputs_give_the_same_bytes_and_another_seed_others(run):
    batches = {"batch_size": 4, "accumulation": 2}
    first, again, other = (run(seed=seed, **batches) for seed in (5, 5, 6))
    assert first[0] == again[0]
    assert first[0].steps == 3
    assert bytes_of(first[1]) == bytes_of(again[1])
    assert bytes_of(first[1]) != bytes_of(other[1])


def test_accumulated_passes_are_one_step_over_all_their_pairs(run, one_step):
    accumulated = run(batch_size=3, accumulation=7)
    assert accumulated[0].loss == pytest.approx(one_step[0].loss, rel=1e-6)
    expected = weights_of(one_step[1])
    for name, weight in weights_of(accumulated[1]).items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-4)


def test_gradient_checkpointing_gives_the_same_weights(run):
    plain, checkpointed = (run(epochs=2, gradient_checkpointing=again) for again in (False, True))
    assert checkpointed[0].loss == pytest.approx(plain[0].loss, rel=1e-5)
    expected = weights_of(plain[1])
    for name, weight in weights_of(checkpointed[1]).items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-5)


def test_the_optimiser_and_the_precision_are_those_of_the_study(run):
    outcomes = {
        (optimizer, precision): run(optimizer=optimizer, precision=precision, learning_rate=0.01)[1]
        for optimizer, precision in (("adamw", "bf16"), ("adamw", "bf16_stochastic"), ("adamw_8bit", "fp32"))
    }
    for (_, precision), folder in outcomes.items():
        assert {weight.dtype for weight in weights_of(folder).values()} == {DTYPES[precision]}
    assert bytes_of(outcomes["adamw", "bf16"]) != bytes_of(outcomes["adamw", "bf16_stochastic"])


def test_pairs_without_loss_are_left_out_and_counted(run, pairs, caplog):
    wordy = [{**pair, "prompt": pair["prompt"] + " 7 8 9" * 40} for pair in pairs[:3]]
    with caplog.at_level("WARNING", logger="safety_spaces"):
        _, folder = run(rows=[*pairs[3:], *wordy])
    assert "pico: 3 of 21 rows are left out: their prompts alone fill training.max_length 96" in caplog.text
    assert bytes_of(folder) == bytes_of(run(rows=pairs[3:])[1])
    with pytest.raises(UserError, match=r"pico: no row has a completion within training.max_length 96"):
        run(rows=wordy)


def test_a_loss_that_is_no_number_stops_the_training(run):
    with pytest.raises(UserError, match=r"pico: the loss is nan at step \d; lower training.learning_rate"):
        run(learning_rate=1e30, epochs=4)
