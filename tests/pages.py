"""The pages that people read, taken apart for tests."""

import re
from functools import cache

from tests.pico import ROOT

NAMES = ["README.md", "CONTRIBUTING.md", "results/README.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]


@cache
def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


README = page("README.md")


def rows_of(text: str, header: str) -> list[list[str]]:
    """The cells of the table that begins with a header row."""
    table = text.split(header)[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.split(" | ")] for line in re.findall(r"^\| (.*) \|$", table, re.MULTILINE)]


def blocks(language: str, *names: str) -> list[str]:
    return [code for name in names for code in re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)]
