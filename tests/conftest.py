"""Shapes are checked while the tests run; nothing reaches the network."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["MPLBACKEND"] = "agg"

import pytest
from jaxtyping import install_import_hook

install_import_hook("safety_spaces", "beartype.beartype")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a pico study is slow: its trainings alone take longer than 5 seconds."""
    for item in items:
        if {"trained", "finished"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A tokenizer of the small world, with a token that pads and one that ends a text."""
    from tests.pico_model import pico_tokenizer

    return pico_tokenizer()


@pytest.fixture(scope="session")
def make_model(tokenizer: Any) -> Callable[..., Any]:
    """A function from (tied, dtype) to a live model, always with the same weights."""
    import torch

    from tests.pico_model import pico_model

    def make(*, tied: bool = True, dtype: torch.dtype = torch.float32) -> Any:
        return pico_model(tokenizer, tied=tied).to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with study.yaml, runs/ and results/ after the fine-tuning; not to be changed."""
    from tests.pico import run_script, write_study

    folder = tmp_path_factory.mktemp("trained")
    assert run_script("finetune", write_study(folder / "study.yaml"), folder) == 0
    return folder


@pytest.fixture(scope="session")
def finished(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder after all five scripts; not to be changed."""
    from tests.pico import SCRIPTS, copy_run, run_script

    folder = copy_run(trained, tmp_path_factory.mktemp("finished") / "run")
    for name in SCRIPTS:
        assert run_script(name, folder / "study.yaml", folder) == 0, name
    return folder
