r"""Consistency trajectory models on CIFAR-10 (Kim et al. 2023): jumps from any noise level to any below.

    python main.py --config configs/cifar10_edm.py --workdir runs/cifar10_edm --config.data_dir=DIR
    python main.py --config configs/cifar10_ctm.py --workdir runs/cifar10_ctm --config.data_dir=DIR \
        --config.teacher_run=runs/cifar10_edm --config.lpips=FILE.npz

Paper: FID-50k 1.98 in one step and 1.87 in two, unconditional; 1.73 and 1.63 with --config.class_conditional=True (all
but 1.73 unverified). Ours: not run. Without an LPIPS file the distance is squared l2. Batch and steps are unverified.

Differs from the paper: its discriminator sees the features of two networks trained on ImageNet, which are not here.
--config.adversarial_weight=1 has one of patches of pixels, told the label, in the same steps instead of every other
one. The student starts at the teacher's averaged weights, or at those of a trajectory model, a converted one or an
earlier run's, with --config.start_run=DIR. --config.distill=False has no teacher: its way is one jump of the averaged
student's own.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

import data
from configs import cifar10, ctm, distances, glue, teachers, trained_models, trajectories
from losses import edm, pairs, steps, times
from losses.adversarial import hinge_generator
from losses.types import FlowMap, Loss, PerExample
from models import ddpmpp, vgg
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The values of the paper's code."""
    config = cifar10.common()
    config.update(
        {
            "teacher_run": "",
            "start_run": "",
            "distill": True,  # False is no teacher but, if there is a run, its weights to start from
            "lpips": "",
            "batch_size": 256,
            "steps": 100_000,
            "dropout": 0.0,
            "sigma_data": 0.5,
            "points": 18,
            "substeps": 17,
            "target_decay": 0.999,
            "adversarial_weight": 0.0,
            "adversarial_start": 50_000,  # steps before it counts
            "discriminator_channels": 64,
            "discriminator_learning_rate": 2e-3,
            "learning_rate": 4e-4,
            "average_decay": 0.9999,
            "exact_steps": (1, 2, 4, 18),
        }
    )
    return config


def network(config: ConfigDict, images: data.Source, teacher: teachers.Teacher) -> ctm.Student:
    """The paper's network, s in a branch of its own, built as what it starts from."""
    model = cifar10.unet(ddpmpp, config, second_time=True).clone(second_branch=True)
    told = {"shape": images.shape, "num_classes": cifar10.classes(config), "sigma_data": config.sigma_data}
    return ctm.student(model, teacher, config.start_run, **told)


def trajectory(config: ConfigDict) -> ctm.Trained:
    """What this network is to runs that go on from it."""
    images = cifar10.source(config)
    student = network(config, images, cifar10.teacher(config, images))
    return ctm.Trained(
        images.shape,
        cifar10.classes(config),
        config.sigma_data,
        "ema",
        lambda params, labels: ctm.preconditioned(student, labels, config.sigma_data)(params),
        student.form,
        network=lambda params: params["network"],
        images=lambda: images,
        built=trained_models.built_of(student.model),
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images, classes = cifar10.source(config), cifar10.classes(config)
    teacher = cifar10.teacher(config, images)
    student = network(config, images, teacher)
    metric = distances.lpips_or_l2(config.lpips, pool=vgg.average_pool)
    height, width, _ = images.shape
    judge = trajectories.discriminator(config.discriminator_channels) if config.adversarial_weight else None
    init = trajectories.initialiser(
        glue.initialiser(student.model, images), judge, (*images.shape[:2], images.shape[2] + classes)
    )

    def initial() -> Params:
        fresh = init(jax.random.key(config.seed))
        if student.start is not None:
            return {**fresh, "network": student.start()}
        return {**fresh, "network": teachers.extended_start(student.model, images, fresh["network"], teacher.params())}

    def adversary(params: Params, x: jax.Array, labels: jax.Array | None, step: jax.Array) -> ctm.Adversary | None:
        if judge is None:
            return None

        def shown(x: jax.Array) -> jax.Array:
            return x if labels is None else trajectories.beside(x, jax.nn.one_hot(labels, classes))

        def players(estimate: jax.Array) -> tuple[PerExample, PerExample]:
            return trajectories.players(
                trajectories.patches(judge), params, shown(x), shown(estimate), generator=hinge_generator
            )

        return ctm.Adversary(players, config.adversarial_weight, jnp.float32(step >= config.adversarial_start))

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        x, labels = batch["image"], batch.get("label")
        averaged, grid = context.averages["target"]["network"], pairs.karras_grid(config.points)
        if config.distill:
            step = ctm.teacher_step(teacher.diffusion.on_path(context.frozen["teacher"], labels, edm), grid)
        else:
            step = partial(steps.jump, flow_map=G_of({"network": averaged}, labels))
        return ctm.loss(
            ctm.preconditioned(student, labels, config.sigma_data, key_dropout),
            params["network"],
            averaged,
            x,
            key_loss,
            layer=(f"dec_{height}x{width}_aux_conv",),
            step=step,
            grid=grid,
            substeps=config.substeps,
            times=times.ctm,
            sigma_data=config.sigma_data,
            distance=metric.distance(context.frozen["metric"]),
            adversary=adversary(params, x, labels, context.step),
        )

    def G_of(params: Params, labels: jax.Array | None) -> FlowMap:
        return ctm.flow_map(ctm.preconditioned(student, labels, config.sigma_data)(params["network"]))

    samplers = tuple(ctm.sampler(G_of, images.shape, n, gamma=0.0) for n in config.exact_steps)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run or student.start else None,
        frozen=lambda: {"teacher": teacher.params() if config.distill else None, "metric": metric.params()},
        objective=objective,
        optimizer=trajectories.optimizer(
            optax.radam(config.learning_rate), optax.radam(config.discriminator_learning_rate, b1=0.5, b2=0.9)
        ),
        averages={
            "target": partial(averages.constant, decay=config.target_decay),
            "ema": partial(averages.constant, decay=config.average_decay),
        },
        **cifar10.fields(config, images, samplers, flip=True),
    )
