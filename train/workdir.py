"""The folder of a run and the record, run.json, that says which run it is and rebuilds it later."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import jax

from .refusal import Refused

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


class Record(NamedTuple):
    """What a run is made from.

    Attributes:
        config_file: relative to the repository where it lies inside.
        config: its values, as JSON can hold them.
        code: hash of the program, of `code_hashes`; "" if it is not known.
    """

    config_file: str
    config: dict[str, Any]
    code: str = ""


def check_claim(workdir: Path, run: Record) -> list[str]:
    """How this run differs from the one that the folder holds, one line for each value; none if it is the same.

    A folder in which nothing was trained yet, because its config did not work out, belongs to nobody.
    """
    path = workdir / "run.json"
    if not (path.exists() and trained(workdir)):
        return []
    there, config = json.loads(path.read_text()), json.loads(json.dumps(run.config))
    differences = [
        f"{name}: {there['config'].get(name, 'absent')!r} there, {config.get(name, 'absent')!r} here"
        for name in sorted(there["config"].keys() | config.keys())
        if there["config"].get(name, "absent") != config.get(name, "absent")
    ]
    if there["config_file"] != run.config_file:
        differences.insert(0, f"config file: {there['config_file']} there, {run.config_file} here")
    return differences


def claim(workdir: Path, run: Record, *, change: bool = False) -> None:
    """Refuse a folder that holds a run of another config, unless that may change.

    Raises:
        Refused: listing every value that differs.
    """
    differences = check_claim(workdir, run)
    if differences and not change:
        raise Refused(
            f"{workdir} holds a run of another config; choose another --workdir, remove that one, or go on with the "
            "new values by --allow_config_change:\n  " + "\n  ".join(differences)
        )


def write_record(workdir: Path, run: Record) -> None:
    """Write run.json, unless it says the same already; earlier values of a run whose config changed stay in it."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / "run.json"
    record = {"config_file": run.config_file, "config": json.loads(json.dumps(run.config))} | circumstances(run)
    if path.exists() and trained(workdir):
        there = json.loads(path.read_text())
        if not check_claim(workdir, run):
            return
        earlier = {name: there[name] for name in ("config_file", "config")}
        record["earlier"] = [*there.get("earlier", []), earlier]
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(record, indent=2) + "\n")
    os.replace(partial, path)


def trained(workdir: Path) -> bool:
    """Whether there is a checkpoint."""
    return any((workdir / "checkpoints").glob("[0-9]*"))


def circumstances(run: Record | None = None) -> dict[str, Any]:
    """What a number depends on besides its config: versions of packages and program, devices."""
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
        **({"code": run.code} if run and run.code else {}),
        "device": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
    }


def changed_circumstances(workdir: Path, run: Record) -> list[str]:
    """What is not as it was when the run began, such as "jax 0.10.2 -> 0.11.0"; results may then differ in bits."""
    path = workdir / "run.json"
    if not path.exists():
        return []
    there, here = (_flat(record) for record in (json.loads(path.read_text()), circumstances(run)))
    return [f"{name} {there[name]} -> {value}" for name, value in here.items() if there.get(name, value) != value]


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    return {**record.get("packages", {}), **{name: value for name, value in record.items() if name != "packages"}}


def check_fingerprint(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Refuse to go on with other data, another order or another batch size than the checkpoint's.

    Raises:
        Refused: listing what differs.
    """
    current = json.loads(json.dumps(current))
    if saved != current:
        differences = [
            f"{name}: {saved.get(name, 'absent')!r} in the checkpoint, {current.get(name, 'absent')!r} now"
            for name in sorted(saved.keys() | current.keys())
            if saved.get(name, "absent") != current.get(name, "absent")
        ]
        raise Refused(
            "the data are not those this run was trained on; --allow_data_change goes on with them:\n  "
            + "\n  ".join(differences)
        )
