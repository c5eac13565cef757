"""Checkpoints of other programs with random numbers in them, converted: folders that are runs."""

import json
from typing import Any

import numpy as np

from configs import cifar10
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
