"""docs/conventions.md: its tables, and their cells in code.

Not a test. Tables of the page and of its tests must have the same rows, so neither can grow alone.
"""

import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from losses import paths

PAGE = Path(__file__).parents[2] / "docs" / "conventions.md"
NAMES: dict[str, Any] = {
    name: getattr(jnp, name)
    for name in ("sin", "cos", "tan", "arctan", "log", "log2", "exp", "sqrt", "floor", "minimum")
} | {
    name: getattr(paths, name)
    for name in ("edm", "linear", "trig", "cosine", "linear_beta", "scaled", "scaled_linear_beta")
}


def headings() -> list[str]:
    """Those of the page's tables, in order."""
    return re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)


def table(heading: str) -> dict[str, dict[str, str]]:
    """Rows of the table under a heading: first cell -> column -> cell."""
    section = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in section.splitlines() if "|" in line]
    header, _, *rows = lines
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def value(cell: str, **names: Any) -> Any:
    """What a cell in code says; None for a cell without code."""
    code = re.fullmatch(r"`(.*)`", cell)
    return None if code is None else eval(code[1], {"__builtins__": {}}, NAMES | names)
