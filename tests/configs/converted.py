"""Checkpoints of other programs with random numbers in them, converted: folders that are runs."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import cifar10, imagenet256
from models import DiT
from models.pretrained import convert, write
from tests.models.pretrained import made_up as checkpoints
from tests.models.pretrained import written

LARGEST = 0.5 * np.tan(1.56455)  # noise of sCM's first step, and the largest that a network of steps knows


def folder_of(tmp_path, name, **changes):
    """A made-up checkpoint, converted, with other values in its run.json; the case, and the parameters."""
    path, case, params = checkpoints.write(tmp_path / "file.pt", name)
    folder = tmp_path / "converted"
    write(folder, convert(path, **case.given), path)
    run = json.loads((folder / "run.json").read_text())
    run["config"] |= changes
    (folder / "run.json").write_text(json.dumps(run))
    return folder, case, params


def student_checkpoint(tmp_path, config, form, kind="edm", preconditioning="edm", **more):
    """A state dict of EDM's of a student's own network, with layers for augmentation labels."""
    student: Any = cifar10.unet(form, config).clone(**more)
    network = {"unet": "song", "resolution": 8, "multipliers": student.multipliers}
    frequencies = student.noise_embedding.keywords.get("frequencies")
    network |= {"resample_filter": student.resample_filter, "residual_encoder": student.residual_encoder}
    call = {"kind": kind, "levels": np.geomspace(0.01, LARGEST, 50)}
    settings = {"network": network | {"frequencies": frequencies}, "call": call}
    given = {"preconditioning": preconditioning}
    theirs = student.clone(augment_features=9, out_channels=6 if kind == "discrete" else 0)
    case = checkpoints.Case("edm", theirs, settings, given)
    params = checkpoints.params_of(case)
    path = written.write_state_dict(tmp_path / "edm.pt", checkpoints.tensors(case, params))
    write(tmp_path / "edm", convert(path, **case.given), path)
    return tmp_path / "edm", params


def transformer(tmp_path, config, program):
    """A folder of a transformer of a student's own shape, with outputs of a variance; it, and its parameters."""
    source = imagenet256.space(config).source
    shape = {field: config[field] for field in ("patch", "width", "depth", "heads")}
    theirs: Any = DiT(**shape, num_classes=source.num_classes, out_channels=2 * source.shape[-1])
    settings = {"network": shape, "shape": source.shape}
    case = checkpoints.Case("dit", theirs, settings, {"program": program, "heads": config.heads})
    params = checkpoints.params_of(case)
    path = written.write_state_dict(tmp_path / "transformer.pt", checkpoints.tensors(case, params))
    write(tmp_path / program, convert(path, **case.given), path)
    return tmp_path / program, (theirs, params)


def backwards(theirs, params, program):
    """v(x, t, labels) of a transformer, t = 1 noise: SiT's time is 1 at data, and it points there; REPA's is ours."""

    def v(x, t, labels):
        sign, time = (-1, 1 - t) if program == "sit" else (1, t)
        return sign * theirs.apply({"params": params}, x, time, labels)[..., : x.shape[-1]]

    return v


def silent(start):
    """Parameters of a network to which the second time says nothing."""
    if "network" in start:
        return {**start, "network": silent(start["network"])}
    (second,) = set(start["conditioning"]) - {"t", "w", "labels"}
    nothing = jax.tree.map(jnp.zeros_like, start["conditioning"][second])
    return {**start, "conditioning": {**start["conditioning"], second: nothing}}
