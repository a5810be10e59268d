"""What the libraries are told before they are imported, in commands and in their workers."""

import logging
import os

NOISY = ("torchao", "torch.utils._pytree", "huggingface_hub", "httpx2", "matplotlib")
"""They say at every start what kernels they lack here, or of every try that no network was reached."""


def prepare_libraries(level: int) -> None:
    """Set what libraries read when they are imported; log from a level on, and of libraries only what is wrong."""
    # Threads that wait for one another sleep: spinning beside another busy process they are 20 times slower. Read when
    # torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Notebooks export a backend of their own, and matplotlib cannot be imported with one that is not installed here.
    os.environ["MPLBACKEND"] = "agg"
    # No library tells anybody that a study is run.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Our own lines only: libraries report every step of every cell at the same level.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("safety_spaces").setLevel(level)
    logging.getLogger("safety_spaces.progress").setLevel(logging.INFO)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
