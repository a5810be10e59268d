"""A model behind `transformers serve` is a judge like the paper's: another address, nothing else."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.evaluation.judges.service.conftest import ledger_of

pytestmark = pytest.mark.slow
START = 120


@pytest.fixture(scope="module")
def folder(make_model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    make_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    chatting = type(tokenizer).from_pretrained(folder)
    chatting.chat_template = "{% for message in messages %}Question: {{ message.content }}\nAnswer:{% endfor %}"
    chatting.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    """Start the server, and wait until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(START * 20):
            if server.poll() is not None or _is_up(port):
                break
            time.sleep(0.05)
        assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait()


def _is_up(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.mark.parametrize("reply", ["text", "structured"])
def test_a_local_server_answers_the_judge(make_judge, folder, address, tmp_path, reply, monkeypatch):
    """The model has learnt nothing, so its replies are unreadable; they are kept and counted all the same."""
    monkeypatch.delenv("OPENAI_API_KEY")
    changes = {"base_url": address, "name": str(folder), "reply": reply, "max_reply_tokens": 8, "timeout": 60.0}
    pairs = [("Wake the amber lantern.", "Take the cloth."), ("Wake the amber lantern.", "")]
    assert make_judge(attempts=2, **changes).score(pairs) == [None, None]
    kept = sorted((tmp_path / "judge").rglob("*.json"))
    assert len(kept) == 2
    content = [path.read_bytes() for path in kept]
    assert all(json.loads(entry)["tokens_in"] > 0 for entry in content)
    assert make_judge(attempts=2, **changes).score(pairs) == [None, None]
    assert [path.read_bytes() for path in kept] == content
    assert ledger_of(tmp_path).is_file()
