"""Shapes are checked while the tests run; nothing reaches the network."""

import os

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
