r"""Scalable interpolant transformers on ImageNet-256 in latents (Ma et al. 2024): SiT, in four sizes.

    python main.py --config configs/imagenet256_sit.py --workdir runs/imagenet256_sit \
        --config.latents=FOLDER --config.autoencoder_run=RUN
    python main.py --config configs/imagenet256_sit.py:B --workdir runs/imagenet256_sit_b \
        --config.latents=FOLDER --config.autoencoder_run=RUN

Data: 256 x 256 images as 32 x 32 x 4 latents times 0.18215, Stable Diffusion's in the paper, written by
`main.py --mode=encode`; the scale is that of the autoencoder's run, `data.multiplied`.

Paper: FID-50k 2.06 for XL with the SDE and 2.15 with the ODE, guidance 1.5, after 7 million steps of batch 256; 8.3
without guidance (unverified). Hardware: TPU; the released port to GPUs has 2.15 with the SDE. Ours: not run.

Differs:
- The network has no second half of output channels, which the official one (learn_sigma) computes and discards.
- Images are not mirrored: they are encoded once.
- The ODE is solved by Heun on a fixed grid, in the code by dopri5: --config.tolerance=1e-6 adds it, and needs diffrax.
- bfloat16 for TF32. The form of the SDE's noise, sigma, is the code's default and unverified for 2.06.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import data
from configs import adaptive_steps, flows, glue, guiding, imagenet256, judged, trained_models
from losses import linear, rectified_flow
from losses.types import Loss, Net
from models import DiT, dit, preconditioning
from samplers import diffusions, euler_maruyama, grids, heun
from samplers.noise import initial
from train import Batch, Context, Experiment, Params, Sampler, averages


def get_config(size: str = "XL") -> ConfigDict:
    """The official code's values for a size.

    Raises:
        ValueError: naming the sizes that there are.
    """
    if size not in dit.SIZES:
        raise ValueError(f"size is {size!r}, this run is published in {', '.join(dit.SIZES)}")
    return ConfigDict(
        {
            "seed": 0,
            "latents": "",
            "autoencoder_run": "",
            "teacher_run": "",  # a flow to start from, such as a converted SiT
            # network
            "patch": 2,
            **dit.SIZES[size]._asdict(),
            "bfloat16": True,
            "remat": "dots",
            "unroll": 1,  # blocks in one iteration of their scan
            "label_dropout": 0.1,
            # optimizer
            "steps": 7_000_000,
            "batch_size": 256,
            "learning_rate": 1e-4,
            "average_decay": 0.9999,
            "accumulate": 1,
            "fsdp": 1,
            "tensor": 1,
            "averages_on_host": False,
            # sampling: 250 steps of the SDE, 250 evaluations of the ODE or one less
            "guidance": 1.5,
            "guided_channels": 3,  # of the four; the official code guides no more
            "sde_steps": 250,
            "sde_last_step": 0.04,
            "heun_steps": 125,
            "tolerance": 0.0,  # of adaptive steps; 0 is no such sampler
            **judged.values(),
            "log_every": 100,
            "checkpoint_every": 5_000,
        }
    )


def network(config: ConfigDict, num_classes: int) -> DiT:
    """The transformer; its time input is t itself, as in the code, where it is 1 - t."""
    return DiT(
        patch=config.patch,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        num_classes=num_classes,
        remat=glue.remat(config.remat),
        unroll=config.unroll,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
    )


def guide_channels(net: Net, reference: Net, *, scale: float, channels: int) -> Net:
    """reference + scale (net - reference) in the first so many channels, net in the others."""

    def guided(x: jax.Array, t: jax.Array) -> jax.Array:
        better, worse = net(x, t), reference(x, t)
        weight = jnp.where(jnp.arange(x.shape[-1]) < channels, scale - 1.0, 0.0)
        return better + weight * (better - worse)

    return guided


def samplers(config: ConfigDict, velocity: glue.NetOf, source: data.Source) -> tuple[Sampler, ...]:
    """Of a velocity, guided: the SDE, the ODE, and the ODE with adaptive steps if they are asked for."""

    def guided(params: Params, labels: jax.Array | None) -> Net:
        net = velocity(params, labels)
        if config.guidance == 1 or labels is None:
            return net
        reference = velocity(params, jnp.full_like(labels, source.num_classes))
        return guide_channels(net, reference, scale=config.guidance, channels=config.guided_channels)

    def stochastic(params: Params, keys: jax.Array, labels: jax.Array | None) -> jax.Array:
        times = np.linspace(1, config.sde_last_step, config.sde_steps)
        diffusion = partial(diffusions.noise_level, path=linear)
        x = initial(keys, source.shape)
        return euler_maruyama(guided(params, labels), x, times, keys, path=linear, diffusion=diffusion)

    calls, n = 1 if config.guidance == 1 else 2, config.heun_steps
    return (
        Sampler(f"euler_maruyama {config.sde_steps}", calls * config.sde_steps, stochastic),
        glue.ode_sampler(f"heun {n}", heun, calls * (2 * n - 1), guided, source.shape, grids.linear(n), path=linear),
        *adaptive_steps.rk45(config.tolerance, guided, source.shape),
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    guiding.check_null_class(config, config.guidance)
    space = imagenet256.space(config)
    source = space.source
    model = network(config, source.num_classes)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.velocity(glue.bind(model, params, labels))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_labels = jax.random.split(key)
        labels = guiding.drop_labels(key_labels, batch["label"], source.num_classes, config.label_dropout)
        return rectified_flow(velocity(params, labels), batch["image"], key_loss)

    return Experiment(
        init=glue.initialiser(model, source),
        **flows.start(config, model, source),
        objective=objective,
        optimizer=optax.adam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet256.fields(config, space, samplers(config, velocity, source), drawn=1),
    )


def flow(config: ConfigDict) -> trained_models.Flow:
    """What this run is to those that go on from it."""
    source = imagenet256.space(config).source
    model = network(config, source.num_classes)
    return trained_models.Flow(
        velocity=lambda params, labels: preconditioning.velocity(glue.bind(model, params, labels)),
        velocity_of=preconditioning.velocity,
        shape=source.shape,
        num_classes=source.num_classes,
        average="ema",
        guidable=config.label_dropout > 0,
        built=trained_models.built_of(model),
    )
