"""What cannot fit on the card is refused with the arithmetic, and the advice is what makes it fit."""

from dataclasses import replace

import pytest
from safetensors.torch import save_file

from safety_spaces.errors import UserError
from safety_spaces.experiments.plan.card import check_memory
from tests.pico import of_model, planned_of, run_script


@pytest.mark.parametrize(
    ("training", "needed"),
    [
        # Table 3 as it stands: 2 + 2 + 4 bytes for each of 7.6 billion weights, and about a gigabyte of activations.
        ({"optimizer": "adamw"}, "61.9 GB: (2 weights + 2 gradients + 4 optimiser) bytes x 7,615,616,512 parameters"),
        ({"optimizer": "adamw", "precision": "bf16_kahan"}, "77.2 GB: (2 weights + 2 gradients + 6 optimiser)"),
        ({"optimizer": "adamw", "precision": "fp32"}, "123 GB: (4 weights + 4 gradients + 8 optimiser)"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_arithmetic(tmp_path, training, needed, capsys):
    of_model("qwen2.5-7b", tmp_path, training=training)
    assert run_script("projection", tmp_path / "study.yaml", tmp_path, "--plan") == 2
    output = capsys.readouterr()
    assert output.out.startswith("study own: 7,615,616,512 parameters")
    assert "roles.useful: expected a training that fits into 48 GiB" in output.err
    assert needed in output.err
    assert "adamw_8bit or adamw_offload" in output.err


def test_a_live_model_that_cannot_fit_is_refused(tmp_path):
    with pytest.raises(
        UserError,
        match=r"projection: expected a live model that fits into 48 GiB \(51\.5 GB\) of RTX A6000, got 30\.5 GB",
    ):
        check_memory(planned_of(of_model("qwen2.5-7b", tmp_path, evaluation={"batch_size": 512})))


@pytest.mark.parametrize(
    ("training", "advice"),
    [
        ({"optimizer": "adamw"}, "set training.optimizer to adamw_8bit or adamw_offload, or gpu"),
        ({"optimizer": "adamw_8bit", "precision": "fp32"}, "set training.precision to bf16, or gpu"),
        (
            {"optimizer": "adamw", "precision": "bf16_kahan"},
            "set training.optimizer to adamw_8bit or adamw_offload and training.precision to bf16, or gpu",
        ),
        ({"batch_size": 16}, "set training.optimizer to adamw_offload, or gpu"),
        (
            {"optimizer": "adamw_offload", "batch_size": 64},
            "set training.batch_size to 1 and training.accumulation to 2048, or gpu",
        ),
        (
            {"optimizer": "adamw_offload", "batch_size": 8, "gradient_checkpointing": False},
            "set training.gradient_checkpointing to true, or gpu",
        ),
    ],
)
def test_advice_is_what_makes_a_training_fit(tmp_path, training, advice):
    with pytest.raises(UserError, match="expected a training that fits into 48 GiB") as refused:
        check_memory(planned_of(of_model("qwen2.5-7b", tmp_path, training=training)))
    assert str(refused.value).endswith(f"; {advice} to the card that there is")


def test_where_nothing_fits_no_advice_is_made_up(tmp_path):
    with pytest.raises(UserError, match=r"; no setting of the study makes it fit: set gpu to a larger card"):
        check_memory(planned_of(of_model("qwen2.5-7b", tmp_path, gpu={"memory": 12})))


def test_advice_on_the_live_model_is_what_makes_it_fit(tmp_path):
    with pytest.raises(UserError, match=r"set evaluation\.batch_size to 128, or gpu"):
        check_memory(planned_of(of_model("qwen2.5-7b", tmp_path, evaluation={"batch_size": 512})))
    narrow = of_model("qwen2.5-7b", tmp_path, gpu={"memory": 30}, training={"optimizer": "adamw_offload"})
    with pytest.raises(UserError, match=r"set projection\.weights_dtype to bfloat16, or gpu"):
        check_memory(planned_of(narrow))


def test_the_card_is_no_matter_of_another_device(tmp_path):
    command = of_model("qwen2.5-7b", tmp_path, training={"optimizer": "adamw"})
    check_memory(planned_of(replace(command, device="cpu")))
    with pytest.raises(UserError, match="expected a training that fits"):
        check_memory(planned_of(replace(command, device="cuda:1")))


def test_a_training_that_is_done_needs_no_memory(tmp_path):
    command = of_model("qwen2.5-7b", tmp_path, training={"optimizer": "adamw"})
    for role in command.study.tasks:
        folder = command.layout.checkpoint(role, 0)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        save_file({}, folder / "model.safetensors")
    check_memory(planned_of(command))
