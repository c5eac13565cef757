"""Consistency trajectory models on scikit-learn's digits (Kim et al. 2023): jumps from any noise level to any below.

    python main.py --config configs/digits_ctm.py --workdir runs/digits_ctm --config.teacher_run=runs/digits_teacher

The teacher goes 1 to 5 Heun steps of an 18-level grid; both jumps go on to 0.002 by the averaged network and are
compared there. A denoising loss keeps g(x, t, t) a diffusion model. As in the code, the jump from the end of the
teacher's way is the network's own and not its average's. With --config.distill=False there is no teacher, and its way
is one jump of the averaged network: the denoising loss alone then ties the jumps to the data.

Differs from the paper: at most 5 steps of the teacher and not 17, which is 7 calls of it on average and not 23; squared
l2 instead of LPIPS, a target average made for 2,000 steps, and no discriminator.
--config.adversarial_weight=1 adds one: small, convolutional, told the label, trained in the same steps.
"""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import data
from configs import ctm, digits, digits_students, forms, glue, teachers, trajectories
from losses import conversions, edm, pairs, steps, times
from losses.adversarial import hinge_generator
from losses.types import FlowMap, Loss, Net, PerExample
from models import DiT
from samplers import grids, heun
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The teacher's network, which is told s too, and the budget of digits.py."""
    config = digits_students.get_config()
    del config.grids
    config.update(
        {
            "distill": True,  # False is no teacher but, if there is a run, its weights to start from
            "points": 18,
            "substeps": 5,
            "target_decay": 0.95,
            # denoising
            "mean": 0.3,
            "std": 1.6,
            # the discriminator; 0 is none
            "adversarial_weight": 0.0,
            "adversarial_start": 500,  # steps before it counts
            "discriminator_channels": 32,
            "learning_rate": 1e-3,
            # sampling: numbers of steps without new noise, and those with as much as there can be
            "exact_steps": (1, 2, 4, 8, 16),
            "stochastic_steps": (4, 8, 16),
            "heun_steps": (18,),  # of the diffusion model that it is too
        }
    )
    return config


def network(config: ConfigDict, source: data.Source) -> DiT:
    """The teacher's network, told s."""
    return digits.network(config, source).clone(second_time=True)


def trajectory(config: ConfigDict) -> ctm.Trained:
    """What this network is to runs that go on from it."""
    source = data.digits()
    return ctm.Trained(
        source.shape,
        source.num_classes,
        config.sigma_data,
        f"power_{config.sigma_rels[0]:.2f}",
        digits_students.on_path_with_end(network(config, source), config, edm),
        forms.TRIGFLOW,
        network=lambda params: params["network"],
        images=lambda: source,
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = data.digits()
    teacher = digits_students.teacher(config, source)
    model = network(config, source)
    g_of = digits_students.on_path_with_end(model, config, edm)
    judge = trajectories.discriminator(config.discriminator_channels) if config.adversarial_weight else None
    seen = (*source.shape[:2], source.shape[2] + source.num_classes)
    init = trajectories.initialiser(glue.initialiser(model, source), judge, seen)

    def initial() -> Params:
        start = init(jax.random.key(config.seed))
        return {**start, "network": teachers.extended_start(model, source, start["network"], teacher.params())}

    def adversary(params: Params, x: jax.Array, labels: jax.Array, step: jax.Array) -> ctm.Adversary | None:
        if judge is None:
            return None
        classes = jax.nn.one_hot(labels, source.num_classes)

        def players(estimate: jax.Array) -> tuple[PerExample, PerExample]:
            real, fake = (trajectories.beside(image, classes) for image in (x, estimate))
            return trajectories.players(trajectories.patches(judge), params, real, fake, generator=hinge_generator)

        return ctm.Adversary(players, config.adversarial_weight, jnp.float32(step >= config.adversarial_start))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        x, labels = batch["image"], batch["label"]
        averaged, grid = context.averages["target"]["network"], pairs.karras_grid(config.points)
        if config.distill:
            step = ctm.teacher_step(teacher.diffusion.on_path(context.frozen, labels, edm), grid)
        else:
            step = partial(steps.jump, flow_map=G_of({"network": averaged}, labels))
        return ctm.loss(
            lambda network: g_of(network, labels),
            params["network"],
            averaged,
            x,
            key,
            layer=("final",),
            step=step,
            grid=grid,
            substeps=config.substeps,
            times=partial(times.ctm, mean=config.mean, std=config.std),
            sigma_data=config.sigma_data,
            adversary=adversary(params, x, labels, context.step),
        )

    def G_of(params: Params, labels: jax.Array | None) -> FlowMap:
        return ctm.flow_map(g_of(params["network"], labels))

    def velocity_of(params: Params, labels: jax.Array | None) -> Net:
        return conversions.denoiser_to_velocity(edm, ctm.denoiser(g_of(params["network"], labels)))

    diffusion = [
        glue.ode_sampler(f"heun {n}", heun, 2 * n - 1, velocity_of, source.shape, grids.karras(n), path=edm)
        for n in config.heun_steps
    ]
    exact = [ctm.sampler(G_of, source.shape, n, gamma=0.0) for n in config.exact_steps]
    stochastic = [ctm.sampler(G_of, source.shape, n, gamma=1.0) for n in config.stochastic_steps]
    fields = digits.fields(config, source, (*exact, *stochastic, *diffusion))
    fields["averages"]["target"] = partial(averages.constant, decay=config.target_decay)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run else None,
        frozen=teacher.params if config.distill else lambda: None,
        objective=objective,
        **fields,
    )
