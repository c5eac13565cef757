r"""Multistep consistency training on ImageNet-64 (Heek et al. 2024, alg. 1), a model for each number of steps.

    python main.py --config configs/imagenet64_multistep_training.py --workdir runs/imagenet64_multistep_training \
        --config.data=FOLDER --config.teacher_run=runs/imagenet64_cosine --config.segments=2

Paper: FID-50k 7.2, 2.7, 1.8, 1.5, 1.5 in 1, 2, 4, 8, 16 steps with its small UViT of 394 M parameters, the network
here, on 64 TPU v5e; 6.4, 2.3, 1.6, 1.5, 1.6 with the large one of 1.23 B on 256, for about 21 hours. Ours: not run.

It starts from the weights of imagenet64_cosine.py, which tells how its network and path differ from the paper's.
Optimizer and average are from memory (unverified). There is no official code.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from configs import forms, glue, imagenet, imagenet64_cosine, teachers
from losses import cosine, curricula, pseudo_huber, segment_consistency, v_weight
from losses.types import Loss
from samplers import ddim, grids
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The paper's values; with `distill` the steps are the teacher's, by aDDIM."""
    config = imagenet64_cosine.common()
    config.update(
        {
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
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    f = imagenet64_cosine.on_path(config, cosine)
    teacher = imagenet.teacher(config, source, form=forms.TRIGFLOW)

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
        )

    n = config.segments
    solver = partial(ddim, path=cosine)
    sampler = glue.ode_sampler(f"ddim {n}", solver, n, f, source.shape, grids.linear(n), path=cosine)
    return Experiment(
        init=glue.initialiser(imagenet64_cosine.network(config), source),
        objective=objective,
        frozen=teacher.params if config.distill else lambda: None,
        optimizer=optax.adam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **teachers.start(config.teacher_run, teacher),
        **imagenet.fields(config, source, (sampler,), average="ema"),
    )
