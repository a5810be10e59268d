"""Shapes are checked while the tests run; nothing reaches the network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

install_import_hook("safety_spaces", "beartype.beartype")
