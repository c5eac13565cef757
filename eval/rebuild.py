"""Rebuild the experiment of a run from the run.json in its folder."""

import importlib.util
import json
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from .run import Experiment

REPOSITORY = Path(__file__).resolve().parents[1]


def config_and_size(given: str) -> tuple[Path, str] | None:
    """The file and the size of a config that is given as FILE.py or FILE.py:SIZE; None of what is neither."""
    found = re.fullmatch(r"(.*\.py)(?::(.*))?", given)
    return (Path(found[1]), found[2] or "") if found else None


def load_experiment(workdir: str | Path) -> Experiment:
    """The experiment of a trained run: its config file's `build`, given the values of the run.

    `run.json` holds `config_file`, absolute or relative to the repository, which is executed, and `config`.

    Raises:
        FileNotFoundError: the folder, its run.json or the config file is missing.
        ValueError: run.json is damaged, or the config file has no `build`.
    """
    config_file, config = read_run(workdir)
    module = load_module(config_file)
    if not hasattr(module, "build"):
        raise ValueError(f"{module.__file__} has no build(config)")
    return module.build(config)


def read_run(workdir: str | Path) -> tuple[Path, Any]:
    """The config file of a trained run and the values it had, a ConfigDict.

    Values that the config file has got since the run began are today's defaults, which stderr is told.

    Raises:
        FileNotFoundError: the folder or its run.json is missing.
        ValueError: run.json is damaged.
    """
    from ml_collections import ConfigDict

    workdir = Path(workdir)
    path = workdir / "run.json"
    if not workdir.is_dir():
        raise FileNotFoundError(f"{workdir}: no such folder")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; is {workdir} the workdir of a run?")
    try:
        run = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    missing = [key for key in ("config_file", "config") if key not in run]
    if missing:
        raise ValueError(f"{path} lacks {' and '.join(missing)}; it has {sorted(run)}")
    # Joining leaves a path that is absolute already as it is.
    config_file, values = REPOSITORY / run["config_file"], _with_tuples(run["config"])
    added = {name: value for name, value in _defaults(config_file).items() if name not in values}
    if added:
        _tell(
            f"{workdir} is a run of earlier code; taken as today: {', '.join(f'{n}={v!r}' for n, v in added.items())}"
        )
    return config_file, ConfigDict({**added, **values})


def _defaults(config_file: Path) -> dict[str, Any]:
    """Values of a config file; none of one that is not there or has no values of its own."""
    get_config = getattr(load_module(config_file), "get_config", None) if config_file.exists() else None
    return get_config().to_dict() if get_config else {}


@cache
def _tell(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def _with_tuples(value: Any) -> Any:
    """JSON has no tuples, and a config has no lists: where a run had a tuple, its record has a list."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(_with_tuples(item) for item in value) if isinstance(value, list) else value


def load_glue(name: str) -> ModuleType:
    """A file of configs/, which alone join evaluation to networks, samplers and data.

    Raises:
        FileNotFoundError: this is an installed package, without the repository.
    """
    path = REPOSITORY / "configs" / f"{name}.py"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: networks and data sets by name need a checkout of the repository")
    return load_module(path)


def load_module(path: str | Path) -> ModuleType:
    """Execute a Python file and return it as a module.

    Raises:
        FileNotFoundError: no such file.
        ValueError: its name does not end in .py.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such config file")
    spec = importlib.util.spec_from_file_location(f"fewstep_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
