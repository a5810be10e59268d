"""Folders of many families, as transformers saves them now and as older versions did: what counts is the live model."""

import functools
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from safety_spaces.errors import UserError, warn_once
from safety_spaces.geometry import Bases, Updates, factor, tensor_energies, totals
from safety_spaces.models.checkpoints import check_same_tensors, update
from safety_spaces.models.live import LiveWeights, WeightEdit
from safety_spaces.models.opening import open_checkpoint
from safety_spaces.tensors import HEAD
from tests.models.families import FAMILIES, FUSED, HIDDEN, family_model, rewrite
from tests.models.folders import EMBEDDING, save, weights

ROLES = ("base", "reference", "useful")
PROMPT = torch.tensor([[3, 11, 7, 25, 4]])


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Makes three models of a family once; returns their folders and their weights by the live names."""

    @functools.cache
    def make(name):
        folder, states = tmp_path_factory.mktemp(name), {}
        for seed, role in enumerate(ROLES):
            model = family_model(name, seed=seed)
            model.save_pretrained(folder / role)
            states[role] = {key: values.clone() for key, values in model.state_dict().items()}
        return SimpleNamespace(folder=folder, states=states)

    return make


@pytest.fixture
def saved(tmp_path, made):
    """A copy of the folders, which a test may change."""

    def copy(name):
        shutil.copytree(made(name).folder, tmp_path, dirs_exist_ok=True)
        return SimpleNamespace(folder=tmp_path, states=made(name).states)

    return copy


@pytest.fixture(scope="session")
def energies(made):
    """Totals of the energies of a family, as its folders are saved."""
    return functools.cache(lambda name: energies_of(updates_of(made(name).folder)))


def updates_of(folder, **options):
    base, reference, useful = (open_checkpoint(folder / role) for role in ROLES)
    return Updates(base, reference, {"useful": useful}, **options)


def energies_of(updates):
    rows = []
    for name, D in updates.each(updates.names, ("reference", "useful")):
        bases = Bases(name, updates.shape(name), factor(D["reference"]).U)
        how = {"names": ["top_k"], "fractions": [0.5], "number_of_draws": 1}
        rows += tensor_energies(bases, {"useful": D["useful"]}, **how, of_kind=updates.reference.kind(name))["useful"]
    return {total.name: total.update for total in totals(rows)}


@pytest.mark.parametrize("name", FAMILIES)
def test_totals_of_a_family_are_those_of_its_weights(saved, name):
    family, model = FAMILIES[name], saved(name)
    states, embeddings = model.states, family.embeddings
    names = set(states["base"]) - ({HEAD} if family.is_tied else set())
    squares = {key: float((states["useful"][key].double() - states["reference"][key].double()).square().sum())
               for key in names}  # fmt: skip
    found = energies_of(updates_of(model.folder))
    assert found["all"] == pytest.approx(sum(squares.values()), rel=1e-6)
    rest = sum(square for key, square in squares.items() if key not in embeddings)
    assert found["all_but_embeddings"] == pytest.approx(rest, rel=1e-6)
    assert found["kind:embed_tokens"] == pytest.approx(squares[embeddings[0]], rel=1e-6)
    positions = [key for key in embeddings[1:] if key != HEAD]
    expected = {"kind:lm_head": HEAD in embeddings, "kind:embed_positions": bool(positions)}
    assert {kind: kind in found for kind in expected} == expected
    vectors = [key for key in names if states["base"][key].ndim == 1]
    of_vectors = found["kind:norm"] + found.get("kind:bias", 0)
    assert of_vectors == pytest.approx(sum(squares[key] for key in vectors), rel=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_residual_side_of_a_family_is_that_of_the_hidden_size(saved, name):
    family = FAMILIES[name]
    updates = updates_of(saved(name).folder, side="residual")
    for key in updates.names:
        stored = updates.plain("useful", key)
        if stored.shape[1] == 1:
            continue
        assert updates.shape(key)[0] == HIDDEN
        is_left = (key.split(".")[-2] in family.writes) != (family.is_transposed and key not in family.embeddings)
        assert torch.equal(updates.of("useful", key), stored if is_left else stored.T)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_live_model_of_a_family_takes_its_updates(saved, name):
    folder = saved(name).folder
    live, wanted = (AutoModelForCausalLM.from_pretrained(folder / role).eval() for role in ("reference", "useful"))
    updates = updates_of(folder)
    updates.reference.check_is_live()
    edits = (
        WeightEdit(key, updates.reference.tensor(key), updates.restored(key, D["useful"]))
        for key, D in updates.each(updates.names, ["useful"])
    )
    with torch.no_grad():
        before = live(PROMPT).logits
        with LiveWeights(live, updates.reference.tensor) as weights:
            weights.write(edits)
            torch.testing.assert_close(live(PROMPT).logits, wanted(PROMPT).logits, rtol=1e-4, atol=1e-3)
        assert torch.equal(live(PROMPT).logits, before)


@pytest.mark.parametrize("name", FUSED)
def test_experts_that_the_live_model_joins_are_compared_and_not_scored(saved, name):
    model = saved(name)
    updates = updates_of(model.folder)
    experts = [key for key in updates.names if ".experts." in key]
    assert len(experts) == 2 * 3 * 3
    assert all(len(updates.reference.shape(key)) == 2 for key in experts)
    squares = sum(float((model.states["useful"][key] - values).double().square().sum())
                  for key, values in model.states["reference"].items())  # fmt: skip
    assert energies_of(updates)["all"] == pytest.approx(squares, rel=1e-6)
    with pytest.raises(UserError, match=r"reference: expected tensors as the live model has them, .* --geometry-only"):
        updates.reference.check_is_live()


OLD = {
    "llama": lambda i: {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2)},
    "gpt2": lambda i: {
        f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 18, 18, dtype=torch.uint8),
        f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4),
    },
    "gpt_neox": lambda i: {
        f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq": torch.ones(2),
        f"gpt_neox.layers.{i}.attention.masked_bias": torch.tensor(-1e9),
        f"gpt_neox.layers.{i}.attention.bias": torch.ones(1, 1, 18, 18),
    },
}


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("holding", [("base",), ("base", "reference"), ROLES])
def test_buffers_of_older_versions_do_not_count(saved, energies, name, holding):
    folder, expected = saved(name).folder, energies(name)
    for role in holding:
        rewrite(folder / role, lambda tensors: {**tensors, **OLD[name](0), **OLD[name](1)})
    updates = updates_of(folder)
    updates.reference.check_is_live()
    assert energies_of(updates) == expected


@pytest.mark.parametrize("changed", ["base", "useful"])
def test_names_without_the_prefix_of_the_head_s_model_are_mapped(saved, energies, changed):
    folder, expected = saved("gpt2").folder, energies("gpt2")
    rewrite(folder / changed, lambda tensors: {key.removeprefix("transformer."): of for key, of in tensors.items()})
    assert energies_of(updates_of(folder)) == expected


def test_a_folder_without_a_head_is_compared_and_not_scored(tmp_path):
    for seed, role in enumerate(ROLES):
        family_model("llama", seed=seed).model.save_pretrained(tmp_path / role)
    updates = updates_of(tmp_path)
    assert EMBEDDING in updates.names
    with pytest.raises(UserError, match=r"reference: expected the tensors of its model, lm_head.weight missing; save"):
        updates.reference.check_is_whole()


def test_a_head_that_an_untied_model_lacks_is_missing(saved):
    folder = saved("llama").folder
    rewrite(folder / "useful", without_head)
    with pytest.raises(UserError, match=r"useful: expected the tensors of .*/reference, lm_head.weight missing; comp"):
        updates_of(folder)


def without_head(tensors):
    return {key: of for key, of in tensors.items() if key != HEAD}


def silence(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["tie_word_embeddings"]
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("name", ["gemma", "gpt2", "opt", "falcon"])
@pytest.mark.parametrize("storing", [(), ("base",), ROLES])
def test_a_head_that_its_class_ties_counts_once_wherever_it_is_stored(saved, energies, name, storing):
    folder, embedding = saved(name).folder, FAMILIES[name].embeddings[0]
    expected = energies(name)
    for role in ROLES:
        silence(folder / role)
    for role in storing:
        rewrite(folder / role, lambda tensors: {**tensors, HEAD: tensors[embedding].clone()})
    assert energies_of(updates_of(folder)) == expected
    twice = open_checkpoint(folder / "useful", tied="twice")
    assert torch.equal(twice.tensor(HEAD), twice.tensor(embedding))


def test_a_file_that_holds_the_head_alone_holds_the_embedding(saved, energies):
    folder, embedding = saved("gpt2").folder, FAMILIES["gpt2"].embeddings[0]
    expected = energies("gpt2")
    rewrite(folder / "base", lambda tensors: {HEAD if key == embedding else key: of for key, of in tensors.items()})
    assert energies_of(updates_of(folder)) == expected


@pytest.mark.parametrize("name", ["gemma", "gpt2"])
def test_a_stored_head_unlike_the_embedding_is_untied_as_transformers_does(saved, name):
    folder, embedding = saved(name).folder, FAMILIES[name].embeddings[0]
    for number, role in enumerate(ROLES):
        rewrite(folder / role, lambda tensors, by=number: {**tensors, HEAD: tensors[embedding] + 1 + by})
    live = AutoModelForCausalLM.from_pretrained(folder / "useful")
    assert live.get_output_embeddings().weight is not live.get_input_embeddings().weight
    updates = updates_of(folder)
    torch.testing.assert_close(updates.reference.tensor(HEAD), updates.reference.tensor(embedding) + 2)
    updates.reference.check_is_live()
    tied = rewrite(folder / "useful", without_head)
    with pytest.raises(UserError, match=r"useful: expected an output head of its own as in .*/reference, it is tied"):
        check_same_tensors(updates.reference, open_checkpoint(tied))


@pytest.mark.parametrize("config", [{"model_type": "llama"}, {"tie_word_embeddings": False}, {}, None])
def test_an_untied_head_is_its_own_tensor(tmp_path, config):
    tensors = {**weights(), HEAD: torch.ones(29, 10)}
    assert torch.equal(open_checkpoint(save(tmp_path / "model", tensors, config)).tensor(HEAD), torch.ones(29, 10))


def test_positions_are_no_tokens(saved):
    """Their numbers may not differ, as those of tokens may; a head's bias has one number a token."""
    folder = saved("phi").folder
    family_model("phi", seed=1, vocab_size=31).save_pretrained(folder / "useful")
    updates = updates_of(folder)
    assert updates.plain("useful", "lm_head.bias").shape == (29, 1)
    for seed, role in enumerate(("first", "second")):
        family_model("gpt2", seed=seed, n_positions=18 + seed).save_pretrained(folder / role)
    with pytest.raises(UserError, match=r"transformer.wpe.weight differ \(\(19, 12\) against \(18, 12\)\)"):
        check_same_tensors(*(open_checkpoint(folder / role) for role in ("first", "second")))


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"model.layers.0.mlp.mixer.weight": torch.ones(10, 10)}, "model.layers.0.mlp.mixer.weight"),
        ({"model.layers.0.mlp.c_proj.weight": torch.ones(10, 10)}, "model.layers.0.mlp.c_proj.weight"),
        ({"model.layers.0.mlp.experts.down_proj": torch.ones(2, 10, 10)}, "model.layers.0.mlp.experts.down_proj"),
    ],
)
def test_a_matrix_of_an_unknown_kind_has_no_residual_side(tmp_path, extra, named):
    """GPT-2 stores c_proj transposed, others do not: without a model nobody knows."""
    first, second = (open_checkpoint(save(tmp_path / f"{n}", {**weights(n), **extra})) for n in (1, 2))
    assert Updates(first, second, {}).shape(named)[0] in (2, 10)
    with pytest.raises(UserError, match=f"2: expected matrices that are known to read .*, {named} is not; set proj"):
        Updates(first, second, {}, side="residual")


def test_files_of_another_family_are_said(tmp_path):
    family_model("llama").save_pretrained(tmp_path / "model")
    rewrite(tmp_path / "model", lambda tensors: {f"_orig_mod.{key}": of for key, of in tensors.items()})
    with pytest.raises(UserError, match=r"model: expected tensors of its model, found none; save it with save_pretr"):
        open_checkpoint(tmp_path / "model")


def test_layers_that_the_configuration_does_not_count_are_left_out_and_said_to_be(saved, caplog):
    folder = saved("llama").folder / "useful"
    rewrite(folder, lambda tensors: {**tensors, **OLD["llama"](0)})
    warn_once.cache_clear()
    everything = open_checkpoint(folder).names
    assert not caplog.messages
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 1}))
    left = [open_checkpoint(folder).names for _ in range(2)]
    assert left == 2 * [tuple(name for name in everything if ".layers.1." not in name)]
    (said,) = caplog.messages
    assert said.startswith(f"warning: {folder}: the files hold layers that config.json does not count, left out: from")


@pytest.mark.parametrize("settings", [{"hidden_size": 10}, {"hidden_act": "none"}, {"num_attention_heads": 0}])
def test_without_a_model_of_the_configuration_names_tell(tmp_path, settings):
    folder = save(tmp_path / "model", {**weights(), "extra": torch.ones(2)}, {"model_type": "llama", **settings})
    assert open_checkpoint(folder).names == tuple(sorted({*weights(), "extra"}))


def test_shards_of_several_types_are_read(saved):
    model = saved("gpt_neox")
    folder = model.folder / "useful"
    tensors = {key: of.to((torch.bfloat16, torch.float64)[n % 2])
               for n, (key, of) in enumerate(model.states["useful"].items())}  # fmt: skip
    (folder / "model.safetensors").unlink()
    for n, (key, of) in enumerate(tensors.items()):
        save_file({key.replace(HEAD, "embed_out.weight"): of}, folder / f"{n}.safetensors")
    index = {key.replace(HEAD, "embed_out.weight"): f"{n}.safetensors" for n, key in enumerate(tensors)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    first, second = (open_checkpoint(model.folder / role) for role in ("reference", "useful"))
    check_same_tensors(first, second)
    for key, of in tensors.items():
        expected = of.double() - model.states["reference"][key].double()
        found = update(first, second, key).double().reshape(of.shape)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vocab_size": 37},
            r"config.json says, lm_head.weight, model.embed_tokens.weight differ \(\(29, 12\) against",
        ),
        (
            {"intermediate_size": 24},
            r"expected tensors of the shapes that its config.json says, .* copy the config.json",
        ),
        ({"model_type": "of_its_own_code"}, "expected a config.json that transformers builds a causal model of"),
        ({"hidden_act": "none_such"}, "expected a config.json that transformers builds a causal model of"),
        (
            {"num_attention_heads": 5, "head_dim": None},
            "expected a config.json that transformers builds a causal model",
        ),
        ({"hidden_size": "twelve"}, "expected a config.json that transformers builds a causal model of"),
    ],
)
def test_settings_that_are_not_of_the_weights_are_refused_where_a_model_is_asked(saved, changes, message):
    folder = saved("llama").folder / "reference"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    for check in (open_checkpoint(folder).check_is_whole, open_checkpoint(folder).check_is_live):
        with pytest.raises(UserError, match=message):
            check()
