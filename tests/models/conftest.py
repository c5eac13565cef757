"""Tiny networks with every parameter random, since many layers start at zero and would hide mistakes."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from jax import Array

from models.dit import DiT
from models.mlp import MLP
from models.unet import ddpmpp, ncsnpp

BATCH, CLASSES = 3, 5


class Case(NamedTuple):
    """A network that takes every condition, its parameters and its inputs."""

    module: nn.Module
    params: dict
    x: Array
    t: Array
    labels: Array
    s: Array

    def __call__(self, x, t, s, labels=None, **kwargs):
        labels = self.labels if labels is None else labels
        return self.module.apply(self.params, x, t, labels, s, **kwargs)


def randomize(params, key):
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([a + 0.1 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)])


def make_case(module, shape) -> Case:
    key_x, key_init, key_random = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (BATCH, *shape))
    t, s = jnp.array([0.2, 0.5, 0.9]), jnp.array([0.1, 0.5, 0.3])
    labels = jnp.array([0, 3, CLASSES])
    params = jax.jit(module.init)(key_init, x, t, labels, s)
    return Case(module, randomize(params, key_random), x, t, labels, s)


def tiny_unet(form, **settings):
    return form(
        channels=8,
        multipliers=(1, 2),
        blocks=1,
        attention_resolutions=(4,),
        num_classes=CLASSES,
        second_time=True,
        dropout=0.4,
        **settings,
    )


NETWORKS = {
    "dit": lambda: (
        DiT(patch=2, width=16, depth=2, heads=2, num_classes=CLASSES, second_time=True, dropout=0.4),
        (4, 6, 3),
    ),
    "ddpmpp": lambda: (tiny_unet(ddpmpp), (8, 8, 3)),
    "ncsnpp": lambda: (tiny_unet(ncsnpp, fourier_scale=0.1), (8, 8, 3)),
    "mlp": lambda: (MLP(width=16, depth=2, num_classes=CLASSES, second_time=True, dropout=0.4), (4,)),
}


@pytest.fixture(scope="session", params=list(NETWORKS))
def case(request) -> Case:
    """Each network in turn."""
    return make_case(*NETWORKS[request.param]())


@pytest.fixture(scope="session")
def dit() -> Case:
    """The transformer."""
    return make_case(*NETWORKS["dit"]())


@pytest.fixture(scope="session")
def case_randomizer():
    """Add a normal draw to every parameter."""
    return lambda params: randomize(params, jax.random.key(7))
