"""What the runs of consistency trajectory models share (Kim et al. 2023): one loss of three terms, for any network.

Not a run. The terms are balanced by the lengths of their gradients at one layer, the last convolution of the last block
in the authors' code.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

import data
import eval as evaluation
import train
from configs import glue, teachers, trajectories
from configs.forms import EDM, Form
from losses import conversions, denoising, edm, edm_weight, jumps, l2, steps, triples
from losses.adversarial import balanced
from losses.types import Distance, FlowMap, Loss, Net, PerExample, Step, Times
from models import preconditioning
from samplers import grids
from samplers.strategic import gamma_stop
from train import Params, Sampler

Path = tuple[str, ...]


class Adversary(NamedTuple):
    """A discriminator beside the network.

    Attributes:
        players: estimates [B, ...] -> loss of the network that made them, and of the discriminator, each [B].
        weight: factor of the first of these, besides what balances it.
        started: 1 once both count, 0 before.
    """

    players: Callable[[jax.Array], tuple[PerExample, PerExample]]
    weight: float
    started: jax.Array


def loss(
    g_of: Callable[[Params], FlowMap],
    params: Params,
    averaged: Params,
    x: jax.Array,
    key: jax.Array,
    *,
    layer: Path,
    step: Step,
    grid: np.ndarray,
    substeps: int,
    times: Times,
    sigma_data: float,
    distance: Distance = l2,
    adversary: Adversary | None = None,
) -> Loss:
    """d(jumps on to the end of the grid) + lambda_1 |g(x_t, t, t) - x|^2 + lambda_2 adversarial term.

    Args:
        g_of: The network's parameters -> g(x_t, t, s) on the EDM path.
        params: Of the network.
        averaged: Of the network that takes both jumps on to the end.
        x: Data.
        key: Draws times and noise, anew for the denoising term.
        layer: Names that lead to the layer where the terms are balanced.
        step: The teacher's, `teacher_step`, or without one `steps.jump` by the averaged network.
        grid: Ascending noise levels.
        substeps: The most intervals of the grid that a step goes.
        times: Law of the times of the denoising term, `times.ctm` with its numbers.
        sigma_data: Standard deviation of the data.
        distance: LPIPS in the paper.
        adversary: If there is one.

    Returns:
        One float32 loss per example, and the terms without their weights.
    """
    key_jumps, key_denoising = jax.random.split(key)

    def terms(leaf: Params) -> tuple[tuple[PerExample, ...], dict[str, PerExample]]:
        g = g_of(replaced(params, layer, leaf))
        pair = jumps(
            flow_map(g),
            x,
            key_jumps,
            triples=partial(triples.ctm, grid=grid, substeps=substeps),
            step=step,
            project=flow_map(g_of(averaged)),
            end=float(grid[0]),
        )
        weight = partial(edm_weight, sigma_data=sigma_data)
        diffusion, _ = denoising(denoiser(g), x, key_denoising, times=times, weight=weight)
        parts = {"t": pair.t, "trajectory": distance(pair.estimate, pair.goal), "denoising": diffusion}
        if adversary is not None:
            parts["adversarial"], parts["discriminator"] = adversary.players(pair.estimate)
        return tuple(parts[name] for name in ("trajectory", "denoising", "adversarial") if name in parts), parts

    limits = ((0.0, 1e4), (0.01, 10.0)) if adversary else ((0.0, 1e4),)
    _, weights, parts = balanced(terms, at(params, layer), limits=limits)
    total = parts["trajectory"] + weights[0] * parts["denoising"]
    if adversary is not None:
        players = adversary.weight * weights[1] * parts["adversarial"] + parts["discriminator"]
        total += adversary.started * players
    return total, parts


# ---- Networks --------------------------------------------------------------------------------------------------------


def flow_map(g: FlowMap) -> FlowMap:
    """G(x_t, t, s) = (s/t) x_t + (1 - s/t) g(x_t, t, s)."""
    return lambda x_t, t, s: conversions.ddim_jump(edm, x_t, g(x_t, t, s), t, s)


def denoiser(g: FlowMap) -> Net:
    """g(x_t, t, t), the denoiser that the same network is: with it come the score, EDM's samplers and likelihood."""
    return lambda x_t, t: g(x_t, t, t)


def teacher_step(D: Net, grid: np.ndarray) -> Step:
    """Heun steps down the grid by a denoiser."""
    return partial(steps.heun_on_grid, velocity=conversions.denoiser_to_velocity(edm, D), grid=grid)


# ---- Going on from a trained one -------------------------------------------------------------------------------------


class Trained(NamedTuple):
    """What a config that trains a trajectory model says to runs that go on from it, by its `trajectory(config)`.

    Where s = t it is a diffusion model: it has a likelihood and makes pairs.

    Attributes:
        shape: of its examples.
        num_classes: 0 if it is unconditional.
        sigma_data: standard deviation its preconditioning assumes.
        average: the weights to take.
        g: (network's params, labels) -> g(x_t, t, s) on the EDM path.
        form: what its network outputs.
        network: parameters of the run -> those of its network.
        images: () -> the images it was trained on, where it can say; pairs of real images are made of them.
        built: how its network is built where its weights do not say it, by `trained_models.built_of`.
    """

    shape: tuple[int, ...]
    num_classes: int
    sigma_data: float
    average: str
    g: Callable[[Params, jax.Array | None], FlowMap]
    form: Form = EDM
    network: Callable[[Params], Params] = lambda params: params
    images: Callable[[], data.Source] | None = None
    built: Mapping[str, Any] = {}  # never changed


class Student(NamedTuple):
    """A network that is to be trained.

    Attributes:
        model: it is built as what it starts from.
        form: what it outputs, which is what that outputs.
        start: () -> the weights of the trajectory model that it goes on from, if any.
    """

    model: Any
    form: Form
    start: Callable[[], Params] | None


def student(
    model: Any,
    teacher: teachers.Teacher,
    workdir: str,
    *,
    shape: tuple[int, ...],
    num_classes: int,
    sigma_data: float,
) -> Student:
    """A network that is built as its teacher, or as the trajectory model in a workdir from which it goes on.

    Raises:
        FileNotFoundError: there is no run, or, when they are read, no checkpoint.
        ValueError: the run is not of a trajectory model, or of other data, or preconditioned otherwise.
    """
    if not workdir:
        return Student(teachers.built_as(teacher, model), teacher.diffusion.form, None)
    config_file, config = evaluation.read_run(workdir)
    module: Any = evaluation.load_module(config_file)
    if not hasattr(module, "trajectory"):
        raise ValueError(f"the run in {workdir} is of {config_file.name}, which does not train a trajectory model")
    trained = cast(Trained, module.trajectory(config))
    teachers.check_alike(
        f"the trajectory model in {workdir}",
        shape=(tuple(trained.shape), tuple(shape)),
        num_classes=(trained.num_classes, num_classes),
        sigma_data=(trained.sigma_data, sigma_data),
    )
    model = model.clone(**trained.built)
    return Student(model, trained.form, lambda: trained.network(train.restore_average(workdir, trained.average)[0]))


def preconditioned(
    student: Student, labels: jax.Array | None, sigma_data: float, dropout: jax.Array | None = None
) -> Callable[[Params], FlowMap]:
    """The network's parameters -> g: EDM's preconditioning, with s shown to the network as t is to EDM's.

    With a dropout key it trains, under one mask for all that a loss asks of it.
    """

    def g_of(params: Params) -> FlowMap:
        def g(x_t: jax.Array, t: jax.Array, s: jax.Array) -> jax.Array:
            bare = glue.bind(student.model, params, labels, dropout, s=jnp.log(s) / 4)
            return preconditioning.edm(student.form.edm(bare, sigma_data), sigma_data)(x_t, t)

        return g

    return g_of


# ---- Parameters ------------------------------------------------------------------------------------------------------


def at(params: Params, layer: Path) -> Params:
    """The parameters of a layer."""
    for name in layer:
        params = params[name]
    return params


def replaced(params: Params, layer: Path, leaf: Params) -> Params:
    """All parameters, with those of one layer given anew."""
    if not layer:
        return leaf
    first, *rest = layer
    return {**params, first: replaced(params[first], tuple(rest), leaf)}


# ---- Samplers --------------------------------------------------------------------------------------------------------


def sampler(
    G_of: trajectories.FlowMapOf, shape: tuple[int, ...], n: int, *, gamma: float, sigma_min: float = 0.002
) -> Sampler:
    """`strategic` with gamma on n levels of a Karras grid: 0 is deterministic, 1 a consistency model's sampler."""
    return trajectories.strategic_sampler(
        f"strategic {n}, gamma {gamma:g}",
        G_of,
        shape,
        grids.karras(n + 1, sigma_min=sigma_min)[:-1],
        path=edm,
        stop=gamma_stop(gamma),
        end=sigma_min,
    )
