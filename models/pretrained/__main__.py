"""Convert a checkpoint of another program, or give one back.

python -m models.pretrained edm-cifar10-32x32-cond-vp.pkl --out runs/edm
python -m models.pretrained SiT-XL-2-256.pt --program sit --out runs/sit
python -m models.pretrained runs/sit --export SiT-XL-2-256.safetensors
python -m models.pretrained vae-ft-mse-840000-ema-pruned.ckpt --out runs/autoencoder
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from .converted import Converted
from .files import FAMILIES, convert, export, load, write
from .folder import DESCRIPTION, is_converted
from .tensors import places

TOLD = (
    *("preconditioning", "program", "heads", "groups", "resolution", "channels_per_head", "schedule"),
    "new_attention_order",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 if something was refused."""
    options = _parser().parse_args(arguments)
    given = {name: getattr(options, name) for name in TOLD if getattr(options, name) is not None}
    if options.diffusion:
        given["consistency"] = False
    try:
        if options.source.is_dir() and (options.export is not None or is_converted(options.source)):
            if options.export is None or given or options.out is not None:
                raise ValueError(f"{options.source} is a folder: give --export FILE, and nothing else")
            converted = load(options.source)
            export(converted, options.export)
            origin, where = json.loads((options.source / DESCRIPTION).read_text())["source"], options.export
        else:
            if options.out is None or options.export is not None:
                raise ValueError(f"{options.source}: give --out FOLDER for what it is converted to")
            converted = convert(options.source, **given)
            write(options.out, converted, options.source)
            origin, where = json.loads((options.out / DESCRIPTION).read_text())["source"], options.out
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, value in facts(converted).items():
        print(f"{name:<12}{value}")
    print(f"{'source':<12}{origin['file']}, sha256 {origin['sha256']}")
    print(f"{'written':<12}{where}")
    return 0


def facts(converted: Converted) -> dict[str, str]:
    """What a network is, in words."""
    settings, family = converted.settings, FAMILIES[converted.family]
    stored_at = family.stored_at(settings)
    names = [name for place, shape in places(converted.params).items() for name in stored_at(place, shape).names()]
    numbers = {
        "tensors": f"{len(names):,}",
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(converted.params)):,}",
    }
    if family.use:
        told = ", ".join(f"{name} {value}" for name, value in settings["network"].items())
        whose = {"names": settings["names"]} if "names" in settings else {}
        return {
            "family": converted.family,
            **numbers,
            "network": told,
            **whose,
            "makes": "no samples",
            "use": family.use,
        }
    height, width, channels = settings["shape"]
    return {
        "family": f"{converted.family}, {type(converted.module).__name__} called as {settings['call']['kind']}",
        **numbers,
        "resolution": f"{height} x {width} x {channels}",
        "classes": f"{settings['num_classes'] or 'none'}",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.pretrained", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="checkpoint, a folder of one, or one that it was converted to")
    parser.add_argument("--out", type=Path, help="folder of the converted checkpoint, which main.py takes as a workdir")
    parser.add_argument("--export", type=Path, help="safetensors file under the source's own names")
    said = parser.add_argument_group("what some files do not say")
    said.add_argument("--preconditioning", help="EDM and ECT, state dicts: edm, vp, ve, iddpm or ecm")
    said.add_argument("--program", help="DiT, SiT, REPA: dit, sit or repa")
    said.add_argument(
        "--heads", type=int, help="DiT, SiT, REPA, DINOv2: attention heads, of sizes that are not published"
    )
    said.add_argument("--groups", type=int, help="autoencoders: groups of the norms, 32 if not given")
    said.add_argument("--resolution", type=int, help="OpenAI: side of the images")
    said.add_argument("--channels-per-head", type=int, help="OpenAI: of the attention, 64 if not given")
    said.add_argument("--schedule", help="guided diffusion: cosine or linear")
    said.add_argument("--new-attention-order", action="store_true", default=None, help="guided diffusion")
    said.add_argument("--diffusion", action="store_true", help="Consistency Models: the EDM, not a consistency model")
    return parser


if __name__ == "__main__":
    sys.exit(main())
