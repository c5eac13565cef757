r"""Improved training of latent consistency models (Dao et al. 2025): iLCT, from random weights, on three data sets.

    python main.py --config configs/latents_ilct.py --workdir runs/latents_ilct \
        --config.latents=FOLDER --config.autoencoder_run=RUN
    python main.py --config configs/latents_ilct.py:church --workdir runs/church_ilct \
        --config.latents=FOLDER --config.autoencoder_run=RUN

Data: 256 x 256 images of CelebA-HQ, of LSUN Church (:church) or of FFHQ (:ffhq) as 32 x 32 x 4 latents, Stable
Diffusion's in the paper, written by `main.py --mode=encode`. Unconditional.

Paper: FID-50k 7.27, 8.87 and 8.72 in one step, 6.93, 7.71 and 8.29 in two, for CelebA-HQ, Church and FFHQ; 1,400 epochs
and 1,800 of Church, in batches of 128 and 256. Hardware: not said. Ours: not run. Which set has the 1,800, and the
images in an epoch, are unverified.

Follows the development snapshots of the code, there being no release: the norm of the Cauchy distance is a mean over
elements, here c grows by the root of their number instead; the weights of the network are their own target. The norms
of the U-Net are over channels, which we could not verify. Differs from them: bfloat16 for float16; noise is paired
within `groups` of the batch, theirs are those of a device.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from configs import glue, judged, latents
from losses import cauchy, curricula, edm, latent_consistency_training, on_host, optimal_transport, pairs
from losses.types import Coupling, Loss, Net
from models import preconditioning
from models.adm import adm
from models.non_scaling_norm import non_scaling_norm
from train import Batch, Context, Experiment, Params, averages

SHAPE = (32, 32, 4)
VARIANTS: dict[str, dict[str, Any]] = {
    "celebahq": {"batch_size": 128, "steps": 1400 * 30_000 // 128},
    "church": {"batch_size": 256, "steps": 1800 * 126_227 // 256},
    "ffhq": {"batch_size": 128, "steps": 1400 * 70_000 // 128},
}


def get_config(data_set: str = "celebahq") -> ConfigDict:
    """The code's values for a data set.

    Raises:
        ValueError: naming the data sets that there are.
    """
    if data_set not in VARIANTS:
        raise ValueError(f"data set is {data_set!r}, this run is published on {', '.join(VARIANTS)}")
    return ConfigDict(
        {
            "seed": 0,
            "latents": "",
            "autoencoder_run": "",
            # network
            "channels": 128,
            "multipliers": (1, 2, 3, 4),
            "blocks": 4,
            "attention_resolutions": (16, 8),
            "channels_per_head": 64,
            "bfloat16": True,
            **values(),
            "groups": 8,  # that noise is paired within
            **VARIANTS[data_set],
        }
    )


def values() -> dict[str, Any]:
    """The code's values that do not depend on the data set or the network."""
    return {
        "sigma_data": 0.5,
        "sigma_min": 0.002,
        # levels, distance
        "s0": 10,
        "s1": 640,
        "mean": -1.1,
        "std": 2.0,
        "diffusion_weight": 5.0,
        # optimizer
        "learning_rate": 1e-4,
        "weight_decay": 1e-4,
        "adam_eps": 1e-4,
        "average_decay": 0.9999,
        "accumulate": 1,
        "fsdp": 1,
        # sampling and judging
        "grids": ((80.0,), (80.0, 0.253)),
        **judged.values(),
        "log_every": 100,
        "checkpoint_every": 5_000,
    }


def space_of(config: ConfigDict) -> latents.Space:
    """The latents in the folder config.latents, and the decoder of config.autoencoder_run."""
    return latents.space(config.latents, config.autoencoder_run, shape=SHAPE, num_classes=0)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    space = space_of(config)
    model = adm(
        channels=config.channels,
        multipliers=tuple(config.multipliers),  # run.json makes lists of tuples
        blocks=config.blocks,
        attention_resolutions=tuple(config.attention_resolutions),
        channels_per_head=config.channels_per_head,
        dropout=0.0,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
    ).clone(norm=non_scaling_norm)

    def f(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.consistency(glue.bind(model, params, None), config.sigma_data, config.sigma_min)

    samplers = glue.consistency_samplers(f, space.source.shape, config.grids, path=edm, sigma_min=config.sigma_min)
    images = latents.decoded(samplers, space)
    grids = glue.grids_of_samples(images[0], every=config.checkpoint_every, average="ema", num_classes=0)
    return Experiment(
        init=glue.initialiser(model, space.source),
        objective=objective_of(
            config, f, elements=prod(space.source.shape), coupling=partial(transport, groups=config.groups)
        ),
        optimizer=optimizer(config),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        samplers=images,
        steps=config.steps,
        accumulate=config.accumulate,
        fsdp=config.fsdp,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        **judged.fields(config, space.images, images, average="ema", num_classes=0, periodic=(grids,)),
        **latents.latent_data(space, seed=config.seed, batch_size=config.batch_size, num_classes=0),
    )


def objective_of(
    config: ConfigDict, f: glue.NetOf, *, elements: int, coupling: Coupling
) -> Callable[[Params, Batch, jax.Array, Context], Loss]:
    """The loss of a consistency function of latents.

    Args:
        config: with the values of `values`, and steps.
        f: (parameters, labels) -> consistency function.
        elements: of a latent.
        coupling: pairs them with noise.
    """

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        points = curricula.ict_points(context.step, steps=config.steps, s0=config.s0, s1=config.s1)
        labels = batch.get("label")
        return latent_consistency_training(
            f(params, labels),
            batch["image"],
            key,
            pairs=partial(pairs.ict, points=points, mean=config.mean, std=config.std, sigma_min=config.sigma_min),
            distance=partial(cauchy, c=curricula.cauchy_scale(points, elements=elements, s0=config.s0)),
            small_noise=curricula.small_noise(points, sigma_min=config.sigma_min),
            diffusion_weight=config.diffusion_weight,
            sigma_data=config.sigma_data,
            coupling=coupling,
        )

    return objective


def transport(key: jax.Array, x: jax.Array, *, groups: int) -> tuple[jax.Array, jax.Array]:
    """Optimal transport within groups of a batch, on the devices of the step that is being traced."""
    mesh = jax.sharding.get_abstract_mesh()
    assign = on_host(linear_sum_assignment)
    return optimal_transport(key, x, assign=assign, groups=groups, mesh=None if mesh.empty else mesh)


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """RAdam, whose weight decay goes into the gradient, as in PyTorch's."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_radam(eps=config.adam_eps),
        optax.scale_by_learning_rate(config.learning_rate),
    )
