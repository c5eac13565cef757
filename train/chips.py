"""Accelerators: memory, speed, and the links between them, as their makers publish them."""

import difflib
from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """One device as JAX counts them: a whole TPU chip, but for tpu7x, which is two devices a chip.

    Attributes:
        name: as in the name of a topology, or as JAX calls the device.
        kind: what JAX calls the device, `device.device_kind`.
        memory: bytes a program may use; of a TPU, what libtpu's compiler says is available.
        flops: peak operations a second in bfloat16, products accumulated in float32.
        bandwidth: bytes a second between the device and its memory.
        links: bytes a second that a device sends to others over all its links, in one direction.
        source: where the numbers are from.
    """

    name: str
    kind: str
    memory: float
    flops: float
    bandwidth: float
    links: float
    source: str


CLOUD = "docs.cloud.google.com/tpu/docs/"

CHIPS = (
    Chip("v4", "TPU v4", 30.75 * GIB, 275e12, 1200e9, 300e9, f"{CLOUD}v4; links Jouppi et al. 2023"),
    Chip("v5e", "TPU v5 lite", 15.75 * GIB, 197e12, 819e9, 200e9, f"{CLOUD}v5e"),
    Chip("v5p", "TPU v5", 95.74 * GIB, 459e12, 2765e9, 600e9, f"{CLOUD}v5p"),
    Chip("v6e", "TPU v6 lite", 31.25 * GIB, 918e12, 1600e9, 400e9, f"{CLOUD}v6e"),
    Chip("tpu7x", "TPU7x", 94.75 * GIB, 1153.5e12, 3690e9, 300e9, f"{CLOUD}tpu7x, half a chip"),
    Chip("A100", "NVIDIA A100-SXM4-80GB", 79 * GIB, 312e12, 2039e9, 300e9, "NVIDIA A100 datasheet"),
    Chip("H100", "NVIDIA H100 80GB HBM3", 79 * GIB, 989e12, 3350e9, 450e9, "NVIDIA H100 datasheet, SXM, dense"),
    Chip("H200", "NVIDIA H200", 139 * GIB, 989e12, 4800e9, 450e9, "NVIDIA H200 datasheet, SXM, dense"),
)
TPUS = tuple(chip.name for chip in CHIPS if chip.kind.startswith("TPU"))


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls so, or None if it is not in the table; a CPU is not."""
    return next((chip for chip in CHIPS if chip.kind == device_kind), None)


def closest(name: str) -> str:
    """A hint at the TPU whose name is like this one, or nothing."""
    return "".join(f"; did you mean {match}?" for match in difflib.get_close_matches(name, TPUS, n=1, cutoff=0.5))
