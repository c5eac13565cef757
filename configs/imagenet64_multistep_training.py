r"""Multistep consistency training on ImageNet-64 (Heek et al. 2024, alg. 1), a model for each number of steps.

    python main.py --config configs/imagenet64_multistep_training.py --workdir runs/imagenet64_multistep_training \
        --config.data=FOLDER --config.teacher_run=runs/imagenet64_cosine --config.segments=2

Paper: FID-50k 7.2, 2.7, 1.8, 1.5, 1.5 in 1, 2, 4, 8, 16 steps with its small UViT of 394 M parameters, the network
here, on 64 TPU v5e; 6.4, 2.3, 1.6, 1.5, 1.6 with the large one of 1.23 B on 256, for about 21 hours. Ours: not run.

It starts from the weights of imagenet64_cosine.py, which tells how its network and path differ from the paper's.
Optimizer and average are from memory (unverified). There is no official code, and no weights of such a network are
published; imagenet64_multistep_adm.py starts from a published one.
"""

from functools import partial
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from configs import glue, imagenet, imagenet64_cosine, teachers
from losses import conversions, cosine, curricula, pseudo_huber, segment_consistency, v_weight
from losses.types import Loss, Net
from models import preconditioning
from samplers import ddim, grids
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The paper's values; with `distill` the steps are the teacher's, by aDDIM."""
    config = imagenet64_cosine.common()
    config.update(values())
    return config


def values() -> dict[str, Any]:
    """Those of the method, whatever the network."""
    return {
        "teacher_run": "",
        "segments": 2,
        "distill": False,
        "steps": 200_000,
        "first_intervals": 64,
        "last_intervals": 1280,
        "ramp_steps": 100_000,
        "eta": 0.75,
        "huber_c": 1e-4,
    }


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, imagenet64_cosine.network(config), end=1.0)


def experiment(config: ConfigDict, model: Any, *, end: float) -> Experiment:
    """The same with another network, that of its teacher, on a path that ends at this time."""
    source = imagenet.images(config)
    teacher = imagenet.teacher(config, source)
    model = teachers.built_as(teacher, model)
    F = teachers.trigflow_network_of(teacher, model, config.sigma_data)

    def f(params: Params, labels: jax.Array | None, dropout: jax.Array | None = None) -> Net:
        net = preconditioning.trigflow(F(params, labels, dropout), config.sigma_data)
        return conversions.trigflow_on_path(net, cosine, sigma_data=config.sigma_data)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        labels = batch.get("label")
        intervals = curricula.multistep_intervals(
            context.step,
            segments=config.segments,
            ramp_steps=config.ramp_steps,
            first=config.first_intervals,
            last=config.last_intervals,
        )
        return segment_consistency(
            f(params, labels, key_dropout),
            batch["image"],
            key_loss,
            segments=config.segments,
            intervals=intervals,
            teacher=teacher.diffusion.on_path(context.frozen, labels, cosine) if config.distill else None,
            eta=config.eta,
            distance=partial(pseudo_huber, c=config.huber_c),
            weight=partial(v_weight, path=cosine),
            end=end,
        )

    n = config.segments
    solver = partial(ddim, path=cosine)
    sampler = glue.ode_sampler(f"ddim {n}", solver, n, f, source.shape, end * grids.linear(n), path=cosine)
    return Experiment(
        init=glue.initialiser(model, source),
        objective=objective,
        frozen=teacher.params if config.distill else lambda: None,
        optimizer=optax.adam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **teachers.start(config.teacher_run, teacher),
        **imagenet.fields(config, source, (sampler,), average="ema"),
    )
