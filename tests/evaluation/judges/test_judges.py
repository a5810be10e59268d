"""Every kind of judge is found by its settings, and its key changes with what its scores depend on and nothing else."""

import json
import re
import subprocess
import sys
from functools import partial

import pytest

from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges import Judge, judge_key, open_judge
from safety_spaces.evaluation.judges import service as module
from safety_spaces.evaluation.judges.keywords import WORDS_OF_REFUSAL, common_phrases
from safety_spaces.miniature import world
from safety_spaces.miniature.corpora import write_rubric
from safety_spaces.models.roles import folder_identity
from safety_spaces.paths import ROOT
from safety_spaces.store import Layout, write_json
from safety_spaces.study import ClassifierJudge, KeywordJudge, Price, RubricJudge, ServiceJudge, load_study
from tests.pico import PICO, write_study

REQUEST = world.requests(forbidden=True)[0]


PLACE = "judge"
"""Of a judge that stands nowhere in the study."""


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "results", tmp_path / "runs", "pico")


def opened(layout, settings, study=None):
    return open_judge(
        settings, study or load_study(write_study(layout.runs.parent / "study.yaml")), layout, device="cpu"
    )


def service(**changes):
    usual = {"kind": "service", "name": "owner/judge:7b", "price": Price(input=1.0, output=2.0), "budget": 6.0}
    return ServiceJudge(**{**usual, "base_url": "http://127.0.0.1:9/v1", **changes})


def classifier(name, **changes):
    return ClassifierJudge(**{"kind": "classifier", "name": str(name), "harmful_labels": ("bad",), **changes})


def write_classifier(folder, *, seed=0):
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    from tests.pico_model import pico_tokenizer

    torch.manual_seed(seed)
    tokenizer = pico_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=12, max_position_embeddings=64, id2label={0: "good", 1: "bad"},
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_the_rubric_of_the_miniature_is_found(layout):
    with pytest.raises(UserError, match=r"rubric\.json: expected the rubric of the miniature"):
        opened(layout, RubricJudge())
    write_rubric(layout.rubric)
    judge = opened(layout, RubricJudge())
    assert judge.score([(REQUEST.text, world.answer(REQUEST)), (REQUEST.text, "")]) == [5, 1]


def test_keywords_are_the_common_ones_or_the_studys_own(layout):
    pairs = [("Wake the lantern.", "I cannot do that."), ("Wake the lantern.", "Not in this town.")]
    assert opened(layout, KeywordJudge(kind="keywords")).score(pairs) == [1, 5]
    own = opened(layout, KeywordJudge(kind="keywords", name="town", phrases=("in this town",)))
    assert own.score(pairs) == [5, 1]
    assert own.name == "town"


def test_a_classifier_is_found_in_its_folder(layout, tmp_path):
    write_classifier(tmp_path / "classifier")
    settings = classifier(tmp_path / "classifier")
    judge = opened(layout, settings)
    assert isinstance(judge, Judge)
    assert judge.name == settings.name
    assert 1 < judge.score([("Wake the lantern.", "Take the cloth.")])[0] < 5


def test_a_service_has_the_rubric_of_the_clone_and_its_own_ledger(layout, monkeypatch):
    monkeypatch.chdir("/")
    judge = opened(layout, service())
    assert isinstance(judge, Judge)
    assert judge.name == "owner/judge:7b"
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with pytest.raises(UserError, match="expected a key of"):
        opened(layout, service(base_url=None))


def test_a_rubric_that_is_missing_or_has_no_place_for_a_text_is_named(layout, tmp_path):
    settings = service(rubric=str(tmp_path / "mine.txt"))
    for use in (partial(opened, layout), partial(judge_key, layout=layout)):
        with pytest.raises(UserError, match=r"judge owner/judge:7b: expected its rubric at .*mine\.txt, found none"):
            use(settings)
    (tmp_path / "mine.txt").write_text("Score {response}.")
    with pytest.raises(UserError, match=r"mine\.txt: expected .* \{prompt\} is missing"):
        opened(layout, settings)


def test_our_rubric_names_every_score_and_the_form_of_the_reply():
    rubric = (ROOT / "configs/rubric.txt").read_text()
    assert rubric.count("{prompt}") == rubric.count("{response}") == 1
    assert re.findall(r"^(\d) - ", rubric, re.MULTILINE) == ["1", "2", "3", "4", "5"]
    assert '{"reason": "...", "score": N}' in rubric


def share(layout, settings, monkeypatch, index, count):
    monkeypatch.setenv("RANK", str(index))
    monkeypatch.setenv("WORLD_SIZE", str(count))
    return module.share(settings, PLACE, layout)


def test_processes_share_the_budget_and_never_a_ledger(layout, monkeypatch):
    shares = [share(layout, service(), monkeypatch, index, 3) for index in range(3)]
    assert [dollars for _, dollars in shares] == [2.0, 2.0, 2.0]
    assert len({ledger for ledger, _ in shares}) == 3
    (folder,) = {ledger.parent for ledger, _ in shares}
    assert folder.parent == layout.runs / "pico/judge"
    assert folder.name.startswith("owner-judge-7b-")


@pytest.mark.parametrize("change", [{"name": "other"}, {"base_url": "http://127.0.0.1:8/v1"}, {"rubric": "mine.txt"}])
def test_another_model_address_or_rubric_has_another_ledger(layout, monkeypatch, change):
    ledgers = {share(layout, settings, monkeypatch, 0, 1)[0] for settings in (service(), service(**change))}
    assert len(ledgers) == 2


def test_a_ledger_outlives_a_change_of_what_does_not_tell_judges_apart(layout, monkeypatch):
    """Else each try at the settings of a server would have the budget anew."""
    changes = ({}, {"temperature": None}, {"reply": "text"}, {"tokens_field": "max_tokens"}, {"max_reply_tokens": 9})
    assert len({share(layout, service(**change), monkeypatch, 0, 1)[0] for change in changes}) == 1


def test_judges_at_two_places_of_a_study_share_no_ledger_and_each_names_its_own_budget(layout, tmp_path):
    """Three judges with the same settings: the budget of each is in the study for itself."""
    asked = service(budget=1e-9, retries=0).model_dump(mode="json")
    harmfulness = {
        **PICO["evaluation"]["harmfulness"],
        "judge": asked,
        "compared_judges": [{"kind": "keywords"}, asked],
    }
    refusal = {"dataset": "plain_requests", "where": {}, "max_new_tokens": 4, "judge": asked}
    path = tmp_path / "study.yaml"
    write_study(path, evaluation={**PICO["evaluation"], "harmfulness": harmfulness, "over_refusal": refusal})
    places = {
        "evaluation.harmfulness.judge",
        "evaluation.harmfulness.compared_judges.1",
        "evaluation.over_refusal.judge",
    }
    ledgers = set()
    for place, settings in (study := load_study(path)).evaluation.judges_by_place.items():
        if place in places:
            with pytest.raises(UserError, match=f"; raise {place}.budget, then run again") as raised:
                opened(layout, settings, study).score([("Wake the lantern.", "No.")])
            ledgers.add(str(raised.value).split(":")[0])
    assert len(ledgers) == 3


def test_what_launches_of_other_sizes_have_spent_is_shared_no_more(layout, monkeypatch):
    for index, dollars in enumerate([1.0, 0.5, 0.5]):
        write_json(share(layout, service(), monkeypatch, index, 3)[0], {"dollars": dollars})
    assert share(layout, service(), monkeypatch, 1, 2)[1] == 2.0
    assert share(layout, service(), monkeypatch, 2, 3)[1] == 2.0


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"temperature": 0.5},
        {"temperature": None},
        {"reply": "text"},
        {"max_reply_tokens": 9},
        {"attempts": 3},
        {"tokens_field": "max_tokens"},
    ],
)
def test_the_key_of_a_service_changes_with_what_its_scores_depend_on(layout, change):
    assert judge_key(service(**change), layout) != judge_key(service(), layout)


@pytest.mark.parametrize(
    "change",
    [
        {"published_rubric": True},
        {"concurrency": 1},
        {"retries": 0},
        {"timeout": 1.0},
        {"unscored_in_a_row": 1},
        {"price": Price(input=0.0, output=0.0)},
        {"budget": 1.0},
    ],
)
def test_the_key_of_a_service_stays_with_what_they_do_not_depend_on(layout, change):
    key = judge_key(service(), layout)
    assert judge_key(service(**change), layout) == key
    assert json.loads(json.dumps(key)) == key


def test_the_same_name_at_another_address_is_another_judge(layout):
    assert judge_key(service(base_url=None), layout) != judge_key(service(), layout)


def test_the_key_changes_with_the_content_of_files_and_not_with_their_place(layout, tmp_path):
    rubric, copy = tmp_path / "a.txt", tmp_path / "b.txt"
    for path in (rubric, copy):
        path.write_text("Score {response} to {prompt}.")
    before = judge_key(service(rubric=str(rubric)), layout)
    assert judge_key(service(rubric=str(copy)), layout) == before
    rubric.write_text("Rate {response} to {prompt}.")
    assert judge_key(service(rubric=str(rubric)), layout) != before


def test_the_key_of_a_classifier_changes_with_its_weights(layout, tmp_path):
    settings = classifier(tmp_path / "classifier")
    keys = []
    for seed in (0, 1):
        write_classifier(tmp_path / "classifier", seed=seed)
        folder_identity.cache_clear()
        keys.append(judge_key(settings, layout))
    assert keys[0] != keys[1]
    assert judge_key(settings, layout) == keys[1]
    assert judge_key(classifier(tmp_path / "classifier", harmful_labels=("good",)), layout) != keys[1]
    moved = (tmp_path / "classifier").rename(tmp_path / "moved")
    assert judge_key(classifier(moved), layout) == keys[1]


def test_the_keys_of_rules_change_with_phrases_and_right_steps_and_not_with_a_temperature(layout):
    common = judge_key(KeywordJudge(kind="keywords"), layout)
    assert judge_key(KeywordJudge(kind="keywords", phrases=("No",)), layout) != common
    assert common[1][:2] == [WORDS_OF_REFUSAL, 25]
    assert common_phrases().verdicts in common[1]
    without = judge_key(RubricJudge(), layout)
    assert judge_key(RubricJudge(temperature=None), layout) == without
    write_rubric(layout.rubric)
    assert judge_key(RubricJudge(), layout) != without


def test_rules_and_keys_need_neither_torch_nor_the_client():
    call = "import sys, safety_spaces.evaluation.judges, safety_spaces.evaluation.metrics\n"
    call += "assert not {'torch', 'transformers', 'openai', 'lm_eval', 'datasets'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
