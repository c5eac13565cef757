"""What the runs with a variational coupling share (Silvestri et al. 2025): an encoder beside the network.

Not a run. Parameters are {"network", "encoder"}. The encoder is a small copy of the network with twice the channels in
its output; it is given data / sigma_data and the noise level 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

import data
from configs import glue, teachers
from losses import variational
from losses.variational import Posterior
from samplers.noise import fresh
from samplers.types import Noise
from train import Params

PosteriorOf = Callable[[Params, jax.Array | None, jax.Array], Posterior]
"""(params, labels, x) -> q(z | x)"""


def initialiser(network: glue.Backbone, encoder: glue.Backbone, source: data.Source) -> Callable[[jax.Array], Params]:
    """key -> {"network", "encoder"}."""
    init_network, init_encoder = glue.initialiser(network, source), glue.initialiser(encoder, source)

    def init(key: jax.Array) -> Params:
        key_network, key_encoder = jax.random.split(key)
        return {"network": init_network(key_network), "encoder": init_encoder(key_encoder)}

    return init


def start(teacher: teachers.Teacher, init: Callable[[jax.Array], Params], seed: int) -> Callable[[], Params]:
    """The teacher's weights with a fresh encoder beside them."""
    return lambda: {**init(jax.random.key(seed)), "network": teacher.params()}


def encoding(encoder: glue.Backbone, sigma_data: float) -> PosteriorOf:
    """The posterior by these parameters."""

    def posterior(params: Params, labels: jax.Array | None, x: jax.Array) -> Posterior:
        return variational.posterior(glue.bind(encoder, params["encoder"], labels)(x / sigma_data, jnp.zeros(len(x))))

    return posterior


def of_network(net_of: glue.NetOf) -> glue.NetOf:
    """The same for the parameters of both."""
    return lambda params, labels: net_of(params["network"], labels)


def learned_noise(posterior: PosteriorOf) -> Callable[[Params, jax.Array | None], Noise]:
    """Noise of a sample as the encoder would draw it for data: what steps after the first add."""

    def noise_of(params: Params, labels: jax.Array | None) -> Noise:
        def noise(keys: jax.Array, number: int | jax.Array, x: jax.Array) -> jax.Array:
            mean, std = posterior(params, labels, x)
            return mean + std * fresh(keys, number, x)

        return noise

    return noise_of
