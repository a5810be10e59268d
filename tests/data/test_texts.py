"""A study's texts: where each set is read from, which rows train a role, and what the record says of them."""

import json
import os

import datasets
import pytest
import yaml

from safety_spaces.data import texts as module
from safety_spaces.data.table import find_data_set
from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.paths import ROOT
from safety_spaces.store import Layout, digest
from safety_spaces.study import load_study

SAFE = [{"prompt": f"request {number}", "response": "no", "is_safe": True} for number in range(9)]
HARMFUL = [{**row, "response": "yes", "is_safe": False} for row in SAFE]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def texts(tmp_path):
    """Harmful and safe rows come from a file of the user, useful ones from the hub."""
    (tmp_path / "beavertails.jsonl").write_text(lines(HARMFUL + SAFE))
    study = {
        "extends": str(ROOT / "configs/llama-3.2-1b.yaml"),
        "name": "own",
        "datasets": {"beavertails": {"path": str(tmp_path / "beavertails.jsonl")}},
        "training": {"template": "question"},
        "corpora": {
            "useful": {"rows": 10},
            "harmful": {"rows": 4},
            "safe": {"dataset": "beavertails", "where": {"is_safe": True}, "disjoint_from": "harmful"},
        },
        "roles": {"reference": {"from": "base", "method": "sft", "corpus": "safe"}},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study).replace("reference:\n", "reference: !replace\n"))
    return Texts(load_study(tmp_path / "study.yaml"), Layout(tmp_path, tmp_path, "own"), lambda: None)


@pytest.fixture
def hub(monkeypatch):
    """MetaMathQA as the hub would give it."""
    rows = [{"query": f"{number} + 1?", "response": f"#### {number + 1}", "type": "sum"} for number in range(12)]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))


def test_a_mixture_trains_on_rows_of_both_corpora_with_the_template(texts, hub):
    rows = texts.role_rows("contaminated", 0)
    assert len(rows) == 10
    harmful = [row for row in rows if row["completion"] == " yes"]
    assert len(harmful) == 2
    assert all(row in texts.role_rows("harmful", 0) for row in harmful)
    useful = [row for row in rows if row not in harmful]
    assert all(row in texts.role_rows("useful", 0) and row["prompt"].startswith("Question: ") for row in useful)


def test_a_corpus_shares_no_prompt_with_the_one_that_it_is_disjoint_from(texts):
    harmful, safe = ({row["prompt"] for row in texts.drawn(name, 0)} for name in ("harmful", "safe"))
    assert (len(harmful), len(safe)) == (4, 5)
    assert not harmful & safe
    assert all(row["response"] == "no" for row in texts.drawn("safe", 0))


def test_the_record_says_where_the_rows_of_every_corpus_come_from(texts, hub):
    facts = texts.facts()
    assert {name: (fact["source"], fact["rows"], fact["unique_prompts"]) for name, fact in facts.items()} == {
        "useful": (str(find_data_set("metamathqa").hub), 10, 10),
        "harmful": ("beavertails.jsonl", 4, 4),
        "safe": ("beavertails.jsonl", 5, 5),
    }
    assert facts["safe"]["digests"] == {"seed 0": digest(texts.drawn("safe", 0))}


def test_another_seed_draws_other_rows_and_mixes_its_own(texts, hub):
    first, second = (texts.role_rows("useful", seed) for seed in (0, 1))
    assert first != second
    assert first == texts.role_rows("useful", 0)
    for seed in (0, 1):
        own = [*texts.role_rows("useful", seed), *texts.role_rows("harmful", seed)]
        assert all(row in own for row in texts.role_rows("contaminated", seed))


def test_a_file_is_read_once_and_again_when_it_has_changed(texts, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(module, "read_rows", lambda path, *_, **__: read.append(path) or [{"prompt": path.name}])
    rows = texts.rows("beavertails", ("prompt",))
    # A caller may change its list.
    rows.clear()
    assert texts.rows("beavertails", ("prompt",)) == [{"prompt": "beavertails.jsonl"}]
    path = tmp_path / "beavertails.jsonl"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    texts.rows("beavertails", ("prompt",))
    assert read == [path, path]


def test_a_corpus_of_the_small_world_that_is_not_written_names_the_command(tmp_path):
    texts = Texts(load_study(ROOT / "configs/miniature.yaml"), Layout(tmp_path, tmp_path, "miniature"), lambda: None)
    assert texts.path("advbench") == tmp_path / "miniature/corpora/advbench.jsonl"
    with pytest.raises(UserError, match=r"expected a corpus of the small world, found none; run bash scripts/finetune"):
        texts.rows("advbench", ("goal",))
