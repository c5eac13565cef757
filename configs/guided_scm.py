"""What the runs share that distil a guided teacher in continuous time, at any scale (Lu & Song 2024, alg. 1): sCD.

Not a run. The teacher is guided by a random scale w for each example, which the network is given too: so the scale of
samples is chosen when they are drawn, and costs no second call. It is guided against its null class, or against the
network of another run, which is what EDM2 was published with.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

import data
from configs import glue, guiding, teachers
from losses import continuous_consistency, conversions, curricula, scaled, tangents, times, trig
from losses.types import Loss, Net
from models import guide, preconditioning
from train import Batch, Context, Params, Sampler

Grids = Iterable[tuple[Sequence[float], float]]
"""Angles, and the scale that they are sampled at."""


class Guided(NamedTuple):
    """A teacher, and what it is guided against.

    Attributes:
        teacher: whose weights the student starts from.
        reference: an unconditional model; None for the teacher's own null class.
    """

    teacher: teachers.Teacher
    reference: teachers.Teacher | None = None

    def params(self) -> Params:
        """Of both."""
        return {"teacher": self.teacher.params(), "reference": self.reference.params() if self.reference else None}

    def like(self) -> Params:
        """Their shapes and types."""
        return {"teacher": self.teacher.like(), "reference": self.reference.like() if self.reference else None}


def distillation(
    config: ConfigDict,
    model: Any,
    guided: Guided,
    source: data.Source,
    grids: Grids,
    *,
    warmup_steps: int,
) -> tuple[dict[str, Any], tuple[Sampler, ...]]:
    """The fields of an Experiment that say what is learned, and its samplers.

    Args:
        config: with guidance_range, mean, std, tangent_c, sigma_data, seed and teacher_run.
        model: the student, with `guided=True`, built as its teacher.
        guided: whom it follows.
        source: of the examples.
        grids: to sample on.
        warmup_steps: until the tangent is whole.
    """
    teacher, (low, high) = guided.teacher, guiding.scales(config)
    path = scaled(trig, config.sigma_data)
    F = teachers.trigflow_network_of(teacher, model, config.sigma_data)
    init = glue.weighted_initialiser(model, source)

    def initial() -> Params:
        start = init(jax.random.key(config.seed))
        return {**start, "network": teachers.extended_start(model, source, start["network"], teacher.params())}

    def denoiser(frozen: Params, labels: jax.Array, w: jax.Array) -> Net:
        if guided.reference is None:
            return teachers.guided(teacher, frozen["teacher"], labels, path, scale=w)
        reference = guided.reference.diffusion.on_path(frozen["reference"], None, path)
        return guide(teacher.diffusion.on_path(frozen["teacher"], labels, path), reference, w)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_dropout, key_w = jax.random.split(key, 3)
        labels = batch["label"]
        w = jax.random.uniform(key_w, labels.shape, minval=low, maxval=high)
        return continuous_consistency(
            F(params["network"], labels, key_dropout, w),
            batch["image"],
            key_loss,
            times=partial(times.trig_lognormal, mean=config.mean, std=config.std, sigma_data=config.sigma_data),
            velocity=conversions.denoiser_to_velocity(path, denoiser(context.frozen, labels, w)),
            warmup=curricula.tangent_warmup(context.step, steps=warmup_steps),
            tangent=partial(tangents.normalised, c=config.tangent_c),
            log_weight=glue.log_weight(params),
            sigma_data=config.sigma_data,
        )

    def f(w: float) -> glue.NetOf:
        return lambda params, labels: preconditioning.trigflow(F(params["network"], labels, w=w), config.sigma_data)

    fields: dict[str, Any] = {
        "init": init,
        "initial": initial if config.teacher_run else None,
        "frozen": guided.params,
        "frozen_like": guided.like,
        "objective": objective,
    }
    return fields, glue.guided_consistency_samplers(f, source.shape, grids, path=path)
