"""Runs that distil a small Stable Diffusion: captions, settings of its U-Net, values of a config, random weights."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.configs.made_up import module, small

FIXTURE = Path(__file__).parents[1] / "fixtures" / "stable_1_5"
NAMES = ("stable_lcm", "stable_tcd", "stable_pcm")
TINY = {"batch_size": 2, "step_counts": (1, 2), "judged_samples": 4, "adversarial_weight": 0.0}
KEYS = jax.random.split(jax.random.key(1), 3)
X, T, TEXT = jax.random.normal(KEYS[0], (2, 8, 8, 4)), jnp.array([19.0, 999.0]), jax.random.normal(KEYS[1], (2, 3, 6))


def captions(path: Path) -> Path:
    """A folder of latents of eight pixels with captions of three tokens."""
    rng = np.random.default_rng(0)
    np.save(path / "latents.npy", rng.standard_normal((20, 8, 8, 4)).astype(np.float16))
    np.save(path / "text.npy", rng.standard_normal((20, 3, 6)).astype(np.float16))
    np.save(path / "empty.npy", rng.standard_normal((3, 6)).astype(np.float16))
    return path


def one_resolution() -> dict[str, Any]:
    """The settings of the fixtures' U-Net, at one resolution."""
    of_fixture = json.loads((FIXTURE / "config.json").read_text())
    blocks = {"down_block_types": ["CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D"]}
    return of_fixture | {"block_out_channels": [4], "layers_per_block": 1} | blocks


def config_of(name, folder, teacher, rank=None, **changes):
    config = small(name, teacher=str(teacher), data=str(folder), bfloat16=False, remat="none")
    for field, value in (TINY | ({} if rank is None else {"lora_rank": rank})).items():
        if field in config:
            config[field] = value
    config.update(changes)
    return config


def built(name, folder, teacher, rank=None, **changes):
    return module(name).build(config_of(name, folder, teacher, rank, **changes))


def noisy(params: Any, scale: float) -> Any:
    """The same parameters, none where it was."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(structure, [x + scale * rng.standard_normal(x.shape).astype(x.dtype) for x in leaves])
