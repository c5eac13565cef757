"""How the benchmarks end: their tables on the screen, their numbers in a file."""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
from rich.console import Console


def console() -> Console:
    """The screen; wide enough for a table where it is a file."""
    found = Console()
    return found if found.is_terminal else Console(width=120)


def keep(given: argparse.Namespace, **numbers: Any) -> None:
    """Write the numbers, the arguments and the device to `given.out`, if that is a file to write."""
    if given.out is None:
        return
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()}
    del settings["out"]
    result = {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "settings": settings, **numbers}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
