"""The folder of a run and the record, run.json, that says which run it is and rebuilds it later."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def claim(workdir: Path, *, config_file: str, config: dict[str, Any]) -> None:
    """Create the folder and its run.json, or check that it belongs to this very config.

    A folder in which nothing was trained yet, because its config did not work out, belongs to nobody.

    Raises:
        ValueError: if the folder holds a run of another config, listing every value that differs.
    """
    record = workdir / "run.json"
    config = json.loads(json.dumps(config))
    if record.exists() and any((workdir / "checkpoints").glob("[0-9]*")):
        other = json.loads(record.read_text())
        differences = [
            f"{name}: {other['config'].get(name, 'absent')!r} there, {config.get(name, 'absent')!r} here"
            for name in sorted(other["config"].keys() | config.keys())
            if other["config"].get(name, "absent") != config.get(name, "absent")
        ]
        if other["config_file"] != config_file:
            differences.insert(0, f"config file: {other['config_file']} there, {config_file} here")
        if differences:
            raise ValueError(
                f"{workdir} holds a run of another config; choose another --workdir or remove that one:\n  "
                + "\n  ".join(differences)
            )
        return
    workdir.mkdir(parents=True, exist_ok=True)
    partial = record.with_suffix(".json.partial")
    partial.write_text(json.dumps({"config_file": config_file, "config": config} | circumstances(), indent=2) + "\n")
    os.replace(partial, record)


def circumstances() -> dict[str, Any]:
    """What a number depends on besides its config: package versions and devices."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "packages": versions,
        "device": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
    }


def check_fingerprint(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Refuse to go on with other data, another order or another batch size than the checkpoint's.

    Raises:
        ValueError: listing what differs.
    """
    current = json.loads(json.dumps(current))
    if saved != current:
        differences = [
            f"{name}: {saved.get(name, 'absent')!r} in the checkpoint, {current.get(name, 'absent')!r} now"
            for name in sorted(saved.keys() | current.keys())
            if saved.get(name, "absent") != current.get(name, "absent")
        ]
        raise ValueError("the data are not those this run was trained on:\n  " + "\n  ".join(differences))
