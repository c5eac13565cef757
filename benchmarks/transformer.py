"""The transformer that benchmarks of recipes, samplers and attention have in common, and its flags."""

from __future__ import annotations

import argparse

import jax.numpy as jnp

from models import DiT


def add_transformer(
    parser: argparse.ArgumentParser, *, width: int, depth: int, heads: int, side: int, batch: int
) -> None:
    """Flags of the network and of its images, with these defaults; patches of 2 pixels, images of 4 channels."""
    defaults = {"width": width, "depth": depth, "heads": heads, "patch": 2, "side": side, "channels": 4, "batch": batch}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bfloat16", action="store_true", help="blocks in bfloat16")


def transformer(given: argparse.Namespace) -> DiT:
    """The network of these flags: ten classes, two times."""
    dtype = jnp.bfloat16 if given.bfloat16 else jnp.float32
    return DiT(given.patch, given.width, given.depth, given.heads, num_classes=10, second_time=True, dtype=dtype)


def image_shape(given: argparse.Namespace) -> tuple[int, int, int]:
    """[side, side, channels] of these flags."""
    return given.side, given.side, given.channels
