"""A converted checkpoint as a folder: weights as safetensors, all else as JSON, and the record that makes it a run."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import numpy as np

from . import dinov2, dit, edm, edm2, inception, lpips, openai, stable_autoencoder
from .contents import SETTINGS, contents, files_of, sha256_of
from .converted import Converted, Family, Settings
from .folder import DESCRIPTION, FORMAT, RUN, WEIGHTS, read_description, read_parameters
from .tensors import places, tensors_of

FAMILIES: Mapping[str, Family] = {
    "autoencoder": stable_autoencoder.FAMILY,  # the first that is asked, since its content can be more than tensors
    "edm": edm.FAMILY,
    "edm2": edm2.FAMILY,
    "openai": openai.FAMILY,
    "dit": dit.FAMILY,
    "dinov2": dinov2.FAMILY,
    "inception": inception.FAMILY,
    "lpips": lpips.FAMILY,
}
"""By the name in model.json."""

DIFFUSION = "configs/pretrained_diffusion.py"
CONFIGS = {
    **dict.fromkeys(("edm", "vp", "ve", "discrete"), DIFFUSION),
    "consistency": "configs/pretrained_consistency.py",
    "trajectory": "configs/pretrained_trajectory.py",
    "velocity": "configs/pretrained_flow.py",
}
"""The config that a folder is a run of, by how its network is called."""
NO_RUN = "configs/pretrained_weights.py"


def convert(path: str | Path, **arguments: Any) -> Converted:
    """A checkpoint of any family, by its content.

    Args:
        path: of the file, or of a folder with the files of LPIPS or of an autoencoder of diffusers.
        arguments: what the file does not say; which there are depends on the family.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the file: it cannot be read, or is of none of the families, or not a network of ours, or an
            argument is missing or superfluous.
    """
    content = contents(path)
    family = next((f for f in FAMILIES.values() if isinstance(content, Mapping) and f.recognises(content)), None)
    if family is None:
        names = [str(name) for name in content][:5] if isinstance(content, Mapping) else [type(content).__name__]
        raise ValueError(f"{path} is of none of the families {', '.join(FAMILIES)}; it has {', '.join(names)}")
    known = [name for name in inspect.signature(family.convert).parameters if name != "content"]
    if unknown := [name for name in arguments if name not in known]:
        raise ValueError(f"{path} takes no {', '.join(unknown)}; what can be given is {', '.join(known) or 'nothing'}")
    try:
        return family.convert(content, **arguments)
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is missing") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write(folder: str | Path, converted: Converted, source: str | Path) -> None:
    """Write a converted checkpoint: model.safetensors, model.json and run.json.

    The tensors of model.safetensors are called as they lie in our tree, joined by "/"; model.json has the name that
    each had in the source.

    Raises:
        FileExistsError: there is one already.
        ImportError: the `safetensors` package is not installed.
    """
    folder = Path(folder)
    there = [name for name in (WEIGHTS, DESCRIPTION, RUN) if (folder / name).exists()]
    if there:
        raise FileExistsError(f"{folder} has {', '.join(there)} already; choose another folder")
    family, settings, _, params = converted
    stored_at = FAMILIES[family].stored_at(settings)
    shapes = places(params)
    folder.mkdir(parents=True, exist_ok=True)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    arrays = {"/".join(part.key for part in path): np.asarray(leaf) for path, leaf in leaves}
    _safetensors().save_file(arrays, folder / WEIGHTS, metadata={"format": "fewstep"})
    files = [file for file in files_of(source) if file.name != SETTINGS]
    description = {
        "format": FORMAT,
        "family": family,
        "settings": settings,
        "source": {"file": "+".join(file.name for file in files), "sha256": sha256_of(files)},
        "parameters": sum(array.size for array in arrays.values()),
        "names": {"/".join(place): stored_at(place, shape).name for place, shape in shapes.items()},
    }
    run = _run(family, settings)
    for name, content in ((DESCRIPTION, description), (RUN, run)):
        (folder / name).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def load(folder: str | Path) -> Converted:
    """A converted checkpoint from its folder.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: the `safetensors` package is not installed.
        ValueError: the description is of another format, or the weights are not those of its network, with all names
            and shapes that differ.
    """
    description = read_description(folder, FAMILIES)
    settings, family = description["settings"], FAMILIES[description["family"]]
    params = read_parameters(folder, description)
    return Converted(description["family"], settings, family.network(settings), params)


def export(converted: Converted, path: str | Path) -> None:
    """Write a network under the names and in the layout of its source, as safetensors, buffers included.

    What was left out at conversion, `settings["left_out"]`, is left out.

    Raises:
        FileExistsError: there is such a file.
        ImportError: the `safetensors` package is not installed.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; choose another name")
    family = FAMILIES[converted.family]
    tensors = tensors_of(converted.params, family.stored_at(converted.settings))
    buffers = family.constants(converted.settings)
    tensors |= {name: np.asarray(value, np.float32, order="C") for name, value in buffers.items()}
    _safetensors().save_file(tensors, path, metadata={"format": "pt"})


def _run(family: str, settings: Settings) -> dict[str, Any]:
    """The record that makes the folder a run, or says that it is none."""
    if FAMILIES[family].use:
        return {"config_file": NO_RUN, "config": {"family": family, "use": FAMILIES[family].use}}
    knobs = {"steps": 18, "guidance": 1.0, "weaker_run": "", "autoguidance": 1.0, "autoencoder": ""}
    knobs |= {"images": "", "features": ["pixels"], "feature_weights": "", "judged_samples": 50_000}
    if settings["call"]["kind"] == "consistency":
        knobs["second_sigma"] = 0.821  # of iCT and ECT on CIFAR-10; a file does not say what it was trained on
    config = {"family": family, "settings": settings, **knobs}
    return {"config_file": CONFIGS[settings["call"]["kind"]], "config": config}


def _safetensors() -> Any:
    try:
        return import_module("safetensors.numpy")
    except ModuleNotFoundError as error:
        raise ImportError("writing weights needs the package safetensors: pip install safetensors") from error
