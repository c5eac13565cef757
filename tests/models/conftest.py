"""Tiny networks with every parameter random, since many layers start at zero and would hide mistakes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from models.adm import adm
from models.dit import DiT
from models.edm2 import edm2_scm
from models.mlp import MLP
from models.unet import ddpmpp, ncsnpp
from models.uvit import UViT


def random_params(module: nn.Module, *inputs) -> Any:
    """Parameters of the right shapes, all of them normal draws; no initializer is compiled.

    Gains, which are scalars, get unit size: a product of small ones would leave the conditions to rounding.
    """
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    # Whichever test comes first may ask for them while it is being traced, and they are kept for all.
    with jax.ensure_compile_time_eval():
        return jax.tree.map(
            lambda a: jnp.asarray((0.2 if a.ndim else 1.0) * generator.standard_normal(a.shape), a.dtype), shapes
        )


@dataclass(frozen=True, eq=False)
class Case:
    """A network that takes every condition, with its inputs."""

    module: nn.Module
    x: Array
    t: Array
    labels: Array
    s: Array
    w: Array

    @cached_property
    def params(self) -> Any:
        """Random parameters."""
        return random_params(self.module, self.x, self.t, self.labels, self.s, self.w)

    @cached_property
    def traces(self) -> list[None]:
        """A None for each time that JAX has traced `value`, which it compiles then."""
        return []

    @cached_property
    def value(self) -> Any:
        """Compiled function (params, x, t, labels, s, w) -> output, without dropout."""

        def apply(*arguments):
            self.traces.append(None)
            return self.module.apply(*arguments)

        return jax.jit(apply)


def unet_case(form: Callable[..., nn.Module], blocks: int, **settings) -> Case:
    """A U-Net of two resolutions on images of 8 x 8 pixels."""
    shape = {"channels": 8, "multipliers": (1, 2), "blocks": blocks, "attention_resolutions": (4,)}
    module = form(**shape, num_classes=5, second_time=True, guided=True, dropout=0.4, **settings)
    return Case(module, jax.random.normal(jax.random.key(0), (3, 8, 8, 3)), T, LABELS, S, W)


def dit_case(**settings) -> Case:
    """A transformer on images that are not square."""
    shape: dict[str, Any] = {"patch": 2, "width": 16, "depth": 2, "heads": 2}
    module = DiT(**shape, num_classes=5, second_time=True, guided=True, dropout=0.4, **settings)
    return Case(module, jax.random.normal(jax.random.key(0), (3, 4, 6, 3)), T, LABELS, S, W)


def uvit_case() -> Case:
    """Convolutions on images that are not square, above a transformer."""
    shape = UViT(channels=8, multipliers=(1,), blocks=1, width=16, depth=2, heads=2, embedding_width=16)
    module = shape.clone(num_classes=5, second_time=True, guided=True, dropout=0.4)
    return Case(module, jax.random.normal(jax.random.key(0), (3, 4, 8, 3)), T, LABELS, S, W)


T, S, W = jnp.array([0.2, 0.5, 0.9]), jnp.array([0.1, 0.5, 0.3]), jnp.array([1.0, 1.4, 7.5])
LABELS = jnp.array([0, 3, 5])
NETWORKS = {
    "dit": dit_case(),
    "dit_double_norm": dit_case(double_norm=True),
    "unet": unet_case(ncsnpp, 1, fourier_scale=0.1),
    "unet_double_norm": unet_case(ddpmpp, 0, double_norm=True),
    "adm": unet_case(adm, 0, channels_per_head=8),
    "edm2_scm": unet_case(edm2_scm, 0, channels_per_head=8, dropout_resolutions=None),
    "uvit": uvit_case(),
    "mlp": Case(
        MLP(width=16, depth=2, num_classes=5, second_time=True, guided=True, dropout=0.4),
        jax.random.normal(jax.random.key(0), (3, 4)),
        T,
        LABELS,
        S,
        W,
    ),
}


@pytest.fixture(params=list(NETWORKS))
def case(request) -> Case:
    """Each network in turn."""
    return NETWORKS[request.param]


@pytest.fixture
def dit() -> Case:
    """The transformer."""
    return NETWORKS["dit"]


@pytest.fixture
def uvit() -> Case:
    """Convolutions above a transformer."""
    return NETWORKS["uvit"]


@pytest.fixture
def randomized():
    """The function `random_params`, for tests that build a network of their own."""
    return random_params
