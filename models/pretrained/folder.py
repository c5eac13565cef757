"""The folder of a converted checkpoint as it is read back: a description in JSON, and weights in safetensors."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from .reader import read
from .tensors import refuse

FORMAT = 1
WEIGHTS, DESCRIPTION, RUN = "model.safetensors", "model.json", "run.json"


def is_converted(path: str | Path) -> bool:
    """Whether a checkpoint was converted there."""
    return (Path(path).expanduser() / DESCRIPTION).is_file()


def read_description(folder: str | Path, families: Collection[str]) -> dict[str, Any]:
    """What model.json says.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another format, or of none of these families.
    """
    folder = Path(folder).expanduser()
    if not is_converted(folder):
        raise FileNotFoundError(f"{folder} has no {DESCRIPTION}: nothing was converted there")
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text())
    family = description.get("family")
    if description.get("format") != FORMAT or family not in families:
        expected = f"format {FORMAT} and a family of {', '.join(families)}"
        raise ValueError(f"{folder / DESCRIPTION} is not of {expected}, but of {family}")
    return description


def source_sha256(folder: str | Path) -> str:
    """Of the file, or files joined by a plus, that was converted there."""
    told: str = json.loads((Path(folder).expanduser() / DESCRIPTION).read_text())["source"]["sha256"]
    return told


def read_parameters(folder: str | Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as they lie in our tree.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: the `safetensors` package is not installed.
        ValueError: the weights are not those that the description says, with all names that differ.
    """
    path = Path(folder).expanduser() / WEIGHTS
    arrays = read(path)
    faults = [f"{name} is missing" for name in description["names"] if name not in arrays]
    faults += [f"{name} is not a tensor of this network" for name in arrays if name not in description["names"]]
    refuse(faults, f"{path} does not have the weights that {DESCRIPTION} says")
    params: dict[str, Any] = {}
    for name, array in arrays.items():
        *place, last = name.split("/")
        layer = params
        for key in place:
            layer = layer.setdefault(key, {})
        layer[last] = jnp.asarray(array)
    return params
