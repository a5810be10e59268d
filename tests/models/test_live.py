"""Weights change for the length of a block and come back bit for bit."""

import json
import math

import pytest
import torch

from safety_spaces.errors import UserError
from safety_spaces.models import live
from safety_spaces.models.device import choose_device
from safety_spaces.models.live import (
    Delivered,
    LiveWeights,
    WeightEdit,
    load_model,
    load_tokenizer,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
NAMES = ("model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight")


def copy_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def assert_same_bits(model, before):
    for name, weight in model.state_dict().items():
        assert torch.equal(weight.flatten().view(torch.uint8), before[name].flatten().view(torch.uint8)), name


def edits_of(reference, scale, names=NAMES):
    """Updates whose norm is `scale` times that of the weights, one generator for each tensor."""
    edits = []
    for seed, name in enumerate(names):
        weight = reference[name].float()
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        edits.append(WeightEdit(name, reference[name], noise * (scale * weight.norm() / noise.norm())))
    return edits


def twin(edits, dtype):
    """Realised energy and cosine from their definition, over one long vector in float64."""
    intended = torch.cat([edit.update.flatten() for edit in edits]).double()
    merged = [(edit.reference.float() + edit.update).to(dtype).double() - edit.reference.double() for edit in edits]
    realised = torch.cat([part.flatten() for part in merged])
    return float(realised.norm() ** 2 / intended.norm() ** 2), float(torch.cosine_similarity(realised, intended, dim=0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_reference_plus_update_inside_and_unchanged_after(make_model, dtype, tied, monkeypatch):
    monkeypatch.setattr(live, "ROWS_AT_ONCE", 7)
    model = make_model(tied=tied, dtype=dtype)
    before = copy_of(model)
    edits = edits_of(before, 0.1)
    with LiveWeights(model, before.__getitem__) as weights:
        delivered = weights.write(edits)
        inside = model.state_dict()
        for edit in edits:
            assert torch.equal(inside[edit.name], (edit.reference.float() + edit.update).to(dtype))
        for name in set(before) - {*NAMES, "lm_head.weight"}:
            assert torch.equal(inside[name], before[name]), name
        head = "model.embed_tokens.weight" if tied else "lm_head.weight"
        assert torch.equal(inside["lm_head.weight"], (inside if tied else before)[head])
    assert_same_bits(model, before)
    expected = twin(edits, dtype)
    assert (delivered.realised_energy, delivered.realised_cosine) == pytest.approx(expected, rel=1e-6)


def test_a_tied_head_changes_with_its_embedding(make_model, tokenizer):
    model = make_model()
    before = copy_of(model)
    ids = tokenizer("Question: Tell", return_tensors="pt")["input_ids"]
    logits = model(input_ids=ids).logits
    with LiveWeights(model, before.__getitem__) as weights:
        weights.write(edits_of(before, 0.1, NAMES[:1]))
        assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
        assert not torch.equal(model(input_ids=ids).logits, logits)
    assert torch.equal(model(input_ids=ids).logits, logits)


def test_float32_delivers_the_whole_update(make_model):
    model = make_model()
    before = copy_of(model)
    with LiveWeights(model, before.__getitem__) as weights:
        delivered = weights.write(edits_of(before, 0.01))
    assert (delivered.realised_energy, delivered.realised_cosine) == pytest.approx((1, 1), rel=1e-4)


def test_a_tiny_update_vanishes_in_bfloat16_and_is_said_to(make_model):
    model = make_model(dtype=torch.bfloat16)
    before = copy_of(model)
    tiny = [WeightEdit(name, before[name], before[name].float() * 2.0**-10) for name in NAMES]
    with LiveWeights(model, before.__getitem__) as weights:
        delivered = weights.write(tiny)
        assert_same_bits(model, before)
    assert delivered == Delivered(0.0, None)


def test_rounding_loses_more_the_smaller_the_update(make_model):
    model = make_model(dtype=torch.bfloat16)
    before = copy_of(model)
    cosines = []
    for scale in (0.1, 0.01, 0.001):
        with LiveWeights(model, before.__getitem__) as weights:
            delivered = weights.write(edits_of(before, scale))
            cosines.append(delivered.realised_cosine)
    assert 1 > cosines[0] > cosines[1] > cosines[2] > 0


@pytest.mark.parametrize("names", [NAMES, ()])
def test_nothing_intended_is_no_number(make_model, names):
    model = make_model()
    before = copy_of(model)
    edits = [WeightEdit(name, before[name], torch.zeros_like(before[name])) for name in names]
    with LiveWeights(model, before.__getitem__) as weights:
        delivered = weights.write(edits)
        assert_same_bits(model, before)
    assert delivered == Delivered(None, None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_come_back_after_an_error_inside_the_block(make_model, dtype):
    model = make_model(dtype=dtype)
    before = copy_of(model)

    def interrupted():
        with LiveWeights(model, before.__getitem__) as weights:
            weights.write(edits_of(before, 0.1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert_same_bits(model, before)


def test_weights_come_back_when_the_edits_break_off(make_model):
    model = make_model()
    before = copy_of(model)

    def broken():
        yield from edits_of(before, 0.1)
        raise OSError("the disk is gone")

    def interrupted():
        with LiveWeights(model, before.__getitem__) as weights:
            weights.write(broken())
            pytest.fail("the block is not entered")

    with pytest.raises(OSError, match="the disk is gone"):
        interrupted()
    assert_same_bits(model, before)


def test_one_edit_is_in_memory_at_a_time(make_model):
    model = make_model()
    before = copy_of(model)

    def lazily():
        for number, edit in enumerate(edits := edits_of(before, 0.1)):
            for done in edits[:number]:
                assert not torch.equal(model.state_dict()[done.name], before[done.name])
            yield edit

    with LiveWeights(model, before.__getitem__) as weights:
        weights.write(lazily())


@pytest.mark.parametrize("tied", [True, False])
def test_a_cell_after_another_has_the_weights_that_it_has_alone(make_model, tied):
    """What both write is overwritten, the rest is restored: no tensor is read that need not be."""
    model = make_model(tied=tied, dtype=torch.bfloat16)
    before, read = copy_of(model), []
    cells = [edits_of(before, scale, names) for scale, names in ((0.1, NAMES), (0.2, NAMES), (0.3, NAMES[1:]), (0, ()))]

    def reference(name):
        read.append(name)
        return before[name]

    with LiveWeights(model, reference) as weights:
        for edits, restored in zip(cells, ([], [], [NAMES[0]], [*NAMES[1:]]), strict=True):
            read.clear()
            delivered, found = weights.write(edits), copy_of(model)
            assert sorted(read) == sorted(restored)
            alone = make_model(tied=tied, dtype=torch.bfloat16)
            assert delivered == LiveWeights(alone, before.__getitem__).write(edits)
            assert_same_bits(alone, found)
        read.clear()
    assert not read
    assert_same_bits(model, before)


def test_tied_weights_are_one_tensor_under_either_name(make_model):
    model = make_model()
    before = copy_of(model)
    (edit,) = edits_of(before, 0.1, NAMES[:1])
    with LiveWeights(model, before.__getitem__) as weights:
        weights.write([edit])
        weights.write([WeightEdit("lm_head.weight", edit.reference, 2 * edit.update)])
        assert torch.equal(model.lm_head.weight, edit.reference + 2 * edit.update)
    assert_same_bits(model, before)


def test_edits_of_several_tensors_count_by_their_energy(make_model):
    # One tensor of the update arrives, the other is lost: what is left of the energy follows from Pythagoras.
    model = make_model(dtype=torch.bfloat16)
    before = copy_of(model)
    arrives, lost = (before[name].float() * factor for name, factor in zip(NAMES, (1.0, 2.0**-10), strict=False))
    edits = [WeightEdit(NAMES[0], before[NAMES[0]], arrives), WeightEdit(NAMES[1], before[NAMES[1]], lost)]
    with LiveWeights(model, before.__getitem__) as weights:
        delivered = weights.write(edits)
    share = float(arrives.norm() ** 2 / (arrives.norm() ** 2 + lost.norm() ** 2))
    found = (delivered.realised_energy, delivered.realised_cosine)
    assert found == pytest.approx((share, math.sqrt(share)), rel=1e-6)


@pytest.mark.parametrize("name", ["cuda:97", "vulcan"])
def test_an_absent_device_is_an_error(name):
    with pytest.raises(UserError, match=f"--device {name}: expected a device of this machine; use --device cpu"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_is_not_replaced_in_silence():
    with pytest.raises(UserError, match="--device cuda: expected a device of this machine"):
        choose_device("cuda")


@pytest.mark.parametrize(("present", "device"), [(True, "cuda"), (False, "cpu")])
def test_without_a_wish_the_device_is_what_is_there(monkeypatch, present, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    found, reason = choose_device(None)
    assert found == torch.device(device)
    assert "CUDA" in reason


@pytest.mark.parametrize("rank", ["0", "2"])
def test_a_launched_process_takes_the_device_of_its_number(monkeypatch, rank):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device(None) == (torch.device("cuda", int(rank)), f"CUDA is available, LOCAL_RANK is {rank}")
    assert choose_device("cpu")[0] == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None)[0] == torch.device("cpu")


@pytest.mark.parametrize("rank", ["3", "-1", "first"])
def test_a_process_without_a_device_of_its_own_is_an_error(monkeypatch, rank):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(UserError, match=f"LOCAL_RANK={rank}: expected the number of one of 3 CUDA devices"):
        choose_device(None)


def test_the_device_asked_for_is_taken():
    assert choose_device("cpu") == (torch.device("cpu"), "asked for with --device")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_is_loaded_in_the_dtype_asked_for(make_model, tmp_path, dtype):
    make_model(dtype=torch.bfloat16).save_pretrained(tmp_path)
    model = load_model(tmp_path, device=torch.device("cpu"), dtype=dtype)
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    assert not model.training
    assert torch.equal(model.lm_head.weight.bfloat16(), make_model(dtype=torch.bfloat16).lm_head.weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_written_over_those_of_the_folder(make_model, tmp_path, tokenizer, dtype, tied):
    """Fewer rows are the first; a tied tensor changes under both of its names."""
    make_model(tied=tied).save_pretrained(tmp_path)
    before = copy_of(make_model(tied=tied))
    generator = torch.Generator().manual_seed(3)
    new = {name: torch.randn(before[name].shape, generator=generator) for name in NAMES}
    new[NAMES[0]] = new[NAMES[0]][:-5]
    model = load_model(tmp_path, device=torch.device("cpu"), dtype=dtype, weights=iter(new.items()))
    expected = before | new | {NAMES[0]: torch.cat([new[NAMES[0]], before[NAMES[0]][-5:]])}
    expected["lm_head.weight"] = expected[NAMES[0]] if tied else before["lm_head.weight"]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, expected[name].to(dtype)), name
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    assert not model.training


def test_weights_of_more_tokens_than_the_model_are_an_error(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    rows, columns = make_model().lm_head.weight.shape
    weights = [(NAMES[0], torch.ones(rows + 2, columns))]
    with pytest.raises(
        UserError, match=f"expected {NAMES[0]} of {rows + 2} rows or more, found {rows}; save the model"
    ):
        load_model(tmp_path, device=torch.device("cpu"), dtype=torch.float32, weights=weights)


def test_a_loaded_tokenizer_pads_on_the_left_with_a_token_of_its_own(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.padding_side == "left"
    assert loaded.pad_token == tokenizer.pad_token


def test_a_tokenizer_without_padding_pads_with_the_end(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "pad_token"})
    )
    assert load_tokenizer(tmp_path).pad_token == tokenizer.eos_token


def test_a_tokenizer_without_padding_and_end_is_an_error(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({key: of for key, of in settings.items() if key not in ("pad_token", "eos_token")}))
    with pytest.raises(UserError, match="expected a tokenizer with a pad or eos token, found neither"):
        load_tokenizer(tmp_path)
