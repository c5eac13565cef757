"""The file of a run as it is named on the command line: found, or refused with the closest name."""

import ast
import difflib
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import eval as evaluation

from .usage import ROOT, UsageError


def available() -> list[str]:
    """The files of configs/ that are runs, for --config; the others are what these share."""
    return sorted(f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py") if is_run(path))


def is_run(path: Path) -> bool:
    """Whether a file has `get_config` and `build`, of its own or another's; it is not imported."""
    return {"get_config", "build"} <= names_in(path).keys()


def names_in(path: Path) -> dict[str, ast.stmt]:
    """What a module defines, by its names."""
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.FunctionDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.Assign):
            found |= {target.id: statement for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.ImportFrom):
            found |= {alias.asname or alias.name: statement for alias in statement.names}
    return found


def check_file(given: str) -> None:
    """That FILE.py or FILE.py:SIZE, as it was given, is a run, and takes a size if there is one.

    Raises:
        UsageError: it is not, with the closest name where it is not there.
    """
    path, size = evaluation.config_and_size(given) or (Path(given), "")
    if path.suffix != ".py" or not path.is_file():
        closest = difflib.get_close_matches(f"configs/{path.name}", available(), n=1)
        told = f"did you mean {closest[0]}?" if closest else "without --config there is a list of them"
        raise UsageError(f"--config={given}: no such run; {told}")
    try:
        runnable = is_run(path)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"--config={given} is no Python file: {error}") from error
    if not runnable:
        raise UsageError(f"--config={given} is not a run: it has no get_config and build of its own")
    made = names_in(path)["get_config"]
    if size and isinstance(made, ast.FunctionDef) and not made.args.args:
        raise UsageError(f"--config={given}: this run has one size alone; leave out :{size}")


def check_types(config: ConfigDict, file: Path, size: str) -> None:
    """That overridden values are of the kind that the config has there.

    Raises:
        UsageError: naming the value, what was given, and what it is by default.
    """
    made = evaluation.load_module(file).get_config
    defaults = (made(size) if size else made()).to_dict()
    for name, value in config.to_dict().items():
        if name in defaults and not alike(value, defaults[name]):
            raise UsageError(f"--config.{name}={value!r} is not of the kind of its default, {defaults[name]!r}")
        if name.endswith("learning_rate") and value < 0:
            raise UsageError(f"--config.{name}={value} is negative")


def alike(value: Any, default: Any) -> bool:
    """Whether a value can stand in the place of another: numbers for numbers, tuples of what its tuple has."""
    if isinstance(default, tuple | list):
        some = default[0] if default else None
        return isinstance(value, tuple | list) and (some is None or all(alike(item, some) for item in value))
    if isinstance(default, float | int) and not isinstance(default, bool):
        return isinstance(value, float | int) and not isinstance(value, bool)
    return default is None or isinstance(value, type(default))
