"""Latent consistency distillation on scikit-learn's digits (Luo et al. 2023), in pixels, at any guidance scale.

    python main.py --config configs/digits_lcm.py --workdir runs/digits_lcm --config.teacher_run=runs/digits_teacher

One DDIM step of the teacher out of 50 on Stable Diffusion's schedule, or by --config.second_order=True one of
DPM-Solver++. The teacher is guided by a random scale for each example, which the network is given too. Scales are
ours, 1 is none: LCM's w is one less.

Differs from the paper: pixels of digits instead of latents; the scale is embedded as it is and not a thousand fold; and
a distance that is nearly l2. With the published huber_c = 1e-3, nearly l1, fd_pixels_2k is 0.346, 0.478, 0.608, 0.854
in 1, 2, 4 and 8 steps; with 1 it is 0.336, 0.370, 0.385, 0.437.
"""

import itertools
from collections.abc import Callable
from functools import partial

import jax
from ml_collections import ConfigDict

import data
from configs import digits, digits_students, glue, guiding, teachers
from losses import Path, consistency, elementwise_pseudo_huber, pairs, paths, steps
from losses.types import Loss
from models import DiT, preconditioning
from samplers import grids
from train import Batch, Context, Experiment, Params, Sampler, averages

GuidedNetOf = Callable[[float | jax.Array], glue.NetOf]
"""guidance scale, one or one for each example -> (params, labels) -> consistency function"""


def get_config() -> ConfigDict:
    """The teacher's network, which is told its scale too, and the budget of digits.py."""
    config = digits_students.get_config()
    del config.grids
    config.update(
        {
            "solver_steps": 50,
            "second_order": False,  # DPM-Solver++ (2S) instead of DDIM: two calls of the teacher
            "guidance_range": (1.0, 2.0),
            "huber_c": 1.0,
            "target_decay": 0.95,
            "learning_rate": 1e-3,
            "step_counts": (1, 2, 4, 8),
            "sampled_guidance": (1.0,),
        }
    )
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, data.digits(), digits.fields)


def experiment(config: ConfigDict, source: data.Source, fields: digits.Fields) -> Experiment:
    """The same on any examples, with the rest of the experiment from `fields`."""
    path = paths.scaled_linear_beta()
    low, high = guiding.scales(config)
    teacher = digits_students.teacher(config, source, guidance=high)
    model = network(config, source)
    f = consistency_function(model, config, path)
    init = glue.initialiser(model, source)

    def initial() -> Params:
        return teachers.extended_start(model, source, init(jax.random.key(config.seed)), teacher.params())

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_w = jax.random.split(key)
        labels = batch["label"]
        w = jax.random.uniform(key_w, labels.shape, minval=low, maxval=high)
        denoiser = teachers.guided(teacher, context.frozen, labels, path, scale=w)
        return consistency(
            f(w)(params, labels),
            batch["image"],
            key_loss,
            pairs=partial(pairs.lcm, grid=pairs.ddim_grid(config.solver_steps)),
            step=partial(steps.dpm_solver if config.second_order else steps.ddim, denoiser=denoiser),
            target=f(w)(context.averages["target"], labels),
            distance=partial(elementwise_pseudo_huber, c=config.huber_c),
            path=path,
        )

    rest = fields(config, source, samplers(f, config, source, path))
    rest["averages"]["target"] = partial(averages.constant, decay=config.target_decay)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        frozen=teacher.params,
        objective=objective,
        **rest,
    )


# ---- What digits_lcf.py has too --------------------------------------------------------------------------------------


def network(config: ConfigDict, source: data.Source) -> DiT:
    """The teacher's network, told a guidance scale."""
    return digits.network(config, source).clone(guided=True)


def consistency_function(model: DiT, config: ConfigDict, path: Path) -> GuidedNetOf:
    """The consistency function at any guidance scale: the identity at timestep 0, and nearly D at all others."""

    def at(w: float | jax.Array) -> glue.NetOf:
        D_of = digits_students.on_path(model, config, path, w=w)
        return lambda params, labels: preconditioning.latent_consistency(D_of(params, labels))

    return at


def samplers(f: GuidedNetOf, config: ConfigDict, source: data.Source, path: Path) -> tuple[Sampler, ...]:
    """Multistep consistency sampling at each number of steps and each scale."""
    timesteps = [grids.latent_consistency(n, solver_steps=config.solver_steps) for n in config.step_counts]
    sampled_at = itertools.product(timesteps, config.sampled_guidance)
    return glue.guided_consistency_samplers(f, source.shape, sampled_at, path=path)
