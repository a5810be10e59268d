"""What a measurement was made on: figures of different stamps are not comparable."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

STAMP = ("cpu", "cores", "gpu", "python", "torch")


def environment_stamp(device: str = "cpu") -> dict[str, Any]:
    """Return the processor, the number of its cores, the GPU that was used, and the versions that matter."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
