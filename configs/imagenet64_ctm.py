r"""Consistency trajectory models on ImageNet-64 (Kim et al. 2023): jumps from any noise level to any below.

    python main.py --config configs/imagenet64_edm.py --workdir runs/imagenet64_edm --config.data=FOLDER
    python main.py --config configs/imagenet64_ctm.py --workdir runs/imagenet64_ctm --config.data=FOLDER \
        --config.teacher_run=runs/imagenet64_edm --config.lpips=FILE.npz

Paper: FID-50k 1.92 in one step and 1.73 in two (the latter unverified), class-conditional; 10,000 to 50,000 steps of
batch 1,440 without the discriminator, then 30,000 and more of 2,112 with it. Ours: not run. Without an LPIPS file the
distance is squared l2.

The first of these two stages. Differs from the paper in that it has no second: that discriminator sees the features
of two networks trained on ImageNet, which are not here. The U-Net is EDM's form of ADM (ln(t) / 4 as it is), and
bfloat16 where the code has float16. With --config.start_run=DIR the student starts from a trajectory model, a
converted one or an earlier run's, and not from its teacher.
"""

from functools import partial

import jax
import optax
from ml_collections import ConfigDict

import data
from configs import ctm, distances, glue, imagenet, teachers, trained_models
from losses import edm, pairs, times
from losses.types import FlowMap, Loss
from models import vgg
from models.adm import adm
from train import Batch, Context, Experiment, Params, averages


def get_config() -> ConfigDict:
    """The values of the official command without a discriminator."""
    config = imagenet.common()
    config.update(
        {
            "teacher_run": "",
            "start_run": "",
            "lpips": "",
            "batch_size": 1440,
            "steps": 50_000,
            "dropout": 0.0,
            "points": 40,
            "substeps": 39,
            "target_decay": 0.999,
            "learning_rate": 4e-4,
            "average_decay": 0.9999,
            "exact_steps": (1, 2, 4),
        }
    )
    return config


def network(config: ConfigDict, source: data.Source, teacher: teachers.Teacher) -> ctm.Student:
    """The paper's network, s in a branch of its own, built as what it starts from."""
    model = imagenet.network(adm, config, second_time=True).clone(second_branch=True)
    told = {"shape": source.shape, "num_classes": source.num_classes, "sigma_data": config.sigma_data}
    return ctm.student(model, teacher, config.start_run, **told)


def trajectory(config: ConfigDict) -> ctm.Trained:
    """What this network is to runs that go on from it."""
    source = imagenet.images(config)
    student = network(config, source, imagenet.teacher(config, source))
    return ctm.Trained(
        source.shape,
        source.num_classes,
        config.sigma_data,
        "ema",
        lambda params, labels: ctm.preconditioned(student, labels, config.sigma_data)(params),
        student.form,
        built=trained_models.built_of(student.model),
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    source = imagenet.images(config)
    teacher = imagenet.teacher(config, source)
    student = network(config, source, teacher)
    metric = distances.lpips_or_l2(config.lpips, pool=vgg.average_pool)
    init = glue.initialiser(student.model, source)
    height, width, _ = source.shape
    layer = (f"dec_{height}x{width}_block{config.blocks}", "conv1")

    def initial() -> Params:
        if student.start is not None:
            return student.start()
        return teachers.extended_start(student.model, source, init(jax.random.key(config.seed)), teacher.params())

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout = jax.random.split(key)
        labels = batch.get("label")
        grid = pairs.karras_grid(config.points)
        return ctm.loss(
            ctm.preconditioned(student, labels, config.sigma_data, key_dropout),
            params,
            context.averages["target"],
            batch["image"],
            key_loss,
            layer=layer,
            step=ctm.teacher_step(teacher.diffusion.on_path(context.frozen["teacher"], labels, edm), grid),
            grid=grid,
            substeps=config.substeps,
            times=times.ctm,
            sigma_data=config.sigma_data,
            distance=metric.distance(context.frozen["metric"]),
        )

    def G_of(params: Params, labels: jax.Array | None) -> FlowMap:
        return ctm.flow_map(ctm.preconditioned(student, labels, config.sigma_data)(params))

    samplers = tuple(ctm.sampler(G_of, source.shape, n, gamma=0.0) for n in config.exact_steps)
    return Experiment(
        init=init,
        initial=initial if config.teacher_run or student.start else None,
        frozen=lambda: {"teacher": teacher.params(), "metric": metric.params()},
        objective=objective,
        optimizer=optax.radam(config.learning_rate),
        averages={
            "target": partial(averages.constant, decay=config.target_decay),
            "ema": partial(averages.constant, decay=config.average_decay),
        },
        **imagenet.fields(config, source, samplers, average="ema", flip=True),
    )
