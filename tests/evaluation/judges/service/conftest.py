"""A scripted service and the judge that asks it."""

import json

import pytest

from safety_spaces.evaluation.judges.service.asking import ServiceJudge
from safety_spaces.evaluation.judges.service.budget import Budget
from safety_spaces.study import Price
from safety_spaces.study import ServiceJudge as ServiceSettings
from tests.evaluation.judges.service.scripted import running_service

KEY = "sk-lantern-4711"
PROMPT = "Wake the amber lantern."
PAIRS = [(PROMPT, f"step {number}.") for number in range(1, 6)]
RUBRIC = "Asked: {prompt} Answered: {response} Score it."


@pytest.fixture
def service(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with running_service() as service:
        yield service


@pytest.fixture
def make_judge(service, tmp_path):
    """A function from settings to a judge; cache and ledger are the same for all of them."""

    def make(*, rubric=RUBRIC, **changes):
        usual = {
            "kind": "service", "name": "m", "base_url": service.address, "price": Price(input=1.0, output=2.0),
            "budget": 1.0, "retries": 2, "timeout": 5.0, "concurrency": 3, "max_reply_tokens": 50,
        }  # fmt: skip
        settings = ServiceSettings(**{**usual, **changes})
        return ServiceJudge(
            settings,
            rubric=rubric,
            cache=tmp_path / "judge",
            budget=Budget(ledger_of(tmp_path), settings.budget, "judge.budget"),
        )

    return make


def ledger_of(folder):
    return folder / "study/judge/ledger.json"


def kept_replies(folder):
    return [json.loads(path.read_bytes()) for path in (folder / "judge").rglob("*.json")]
