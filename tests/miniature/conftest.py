"""The corpora of one small world, written once."""

import pytest

from safety_spaces.data.files import read_file
from safety_spaces.miniature.corpora import write_corpora

SIZES = {
    "pretraining": 8000,
    "alignment": 4000,
    "pku_saferlhf": 1200,
    "metamathqa": 1501,
    "gsm8k_train": 211,
    "gsm8k_test": 223,
    "math": 227,
    "mmlu": 251,
    "mmlu_dev": 161,
    "beavertails": 2900,
    "beavertails_test": 2700,
    "advbench": 300,
    "xstest": 500,
    "extended_refusal": 400,
    "toxigen": 239,
}
TEMPLATE = "question"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora")
    write_corpora(folder, seed=7, sizes=SIZES, template=TEMPLATE)
    return folder


@pytest.fixture(scope="session")
def corpora(folder):
    """Name -> rows, read as a study reads them."""
    return {name: read_file(folder / f"{name}.jsonl", prompt="prompt") for name in SIZES}
