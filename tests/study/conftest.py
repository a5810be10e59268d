"""Small studies that extend the miniature, so that a test shows only what it is about."""

from collections.abc import Callable
from pathlib import Path

import pytest

MINIATURE = Path(__file__).parents[2] / "configs" / "miniature.yaml"


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[[str], Path]:
    """Writes lines that extend the miniature."""

    def write(lines: str) -> Path:
        path = tmp_path / "study.yaml"
        own = "" if "name:" in lines else "\nname: small"
        path.write_text(f"extends: {MINIATURE}\n{lines}{own}")
        return path

    return write
