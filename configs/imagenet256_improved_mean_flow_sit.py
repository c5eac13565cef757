r"""Improved MeanFlow on latents of ImageNet-256 (Geng et al. 2025) with SiT's transformer, from a published flow.

    python main.py --config configs/imagenet256_improved_mean_flow_sit.py \
        --workdir runs/imagenet256_improved_mean_flow_sit \
        --config.latents=FOLDER --config.autoencoder_run=RUN --config.teacher_run=runs/sit

Data as in imagenet256_sit.py. The teacher is a run of that config or a converted SiT or REPA of the size: S, B, L, XL;
nobody has published weights of the paper's own transformer that we know. Without one it starts from random weights.

The network is SiT's, told t - s and the guidance scale too, as the scale 1 - 1/omega; its last layer is twice as wide,
u and v. Both halves start as the flow's velocity, at every scale; the layers of t - s start at random.

Paper: has no such run. Ours: not run. The values are those of imagenet256_improved_mean_flow.py: unverified here.

Differs from the paper: conditions are added up and modulate, and are no tokens; the head v is one layer; the network is
told t as well, as SiT's is, and no interval of guidance: all times are guided, in training and in samples.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from configs import flows, glue, guiding, imagenet256, imagenet256_sit
from configs import imagenet256_improved_mean_flow as base
from losses import power_law_guidance
from losses.improved_mean_flow import Guidance, TwoHeads
from train import Experiment, Params


def get_config(size: str = "XL") -> ConfigDict:
    """The values for a size of SiT.

    Raises:
        ValueError: naming the sizes that there are.
    """
    config = base.get_config()
    del config["head_depth"]
    config.update({"teacher_run": "", **imagenet256.transformer(size), "guided": ((1, 1.5), (2, 1.5))})
    config.update({"tensor": 1, "averages_on_host": False})
    return config


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    guiding.check_null_class(config, config.largest_omega)
    space = imagenet256.space(config)
    source = space.source
    one_head = imagenet256_sit.network(config, source.num_classes).clone(second_time=True, guided=True)
    model = one_head.clone(out_channels=2 * source.shape[-1])

    def heads_of(params: Params) -> TwoHeads:
        def net(x_t: jax.Array, t: jax.Array, s: jax.Array, y: Any, g: Guidance) -> tuple[jax.Array, jax.Array]:
            both = glue.bind(model, params, y, s=t - s, w=1 - 1 / g.omega)(x_t, t)
            u, v = jnp.split(both, 2, axis=-1)
            return u, v

        return net

    def always(key: jax.Array, n: int) -> Guidance:
        drawn = power_law_guidance(key, n, beta=config.beta, largest=config.largest_omega)
        return drawn._replace(low=jnp.zeros(n), high=jnp.ones(n))

    samplers = tuple(base.guided_sampler(heads_of, source.shape, *numbers) for numbers in config.guided)
    learned = base.experiment(config, space, glue.initialiser(model, source), heads_of, always, samplers)
    start = flows.start(config, one_head, source)
    if not start:
        return learned
    return learned._replace(initial=lambda: two_headed(start["initial"](), patch=config.patch))


def two_headed(params: Params, *, patch: int) -> Params:
    """The parameters of one head as those of two that are alike."""
    return {**params, "final": jax.tree.map(partial(_twice, pixels=patch**2), params["final"])}


def _twice(leaf: jax.Array, *, pixels: int) -> jax.Array:
    """Outputs [..., pixels * channels] as [..., pixels * 2 channels], those of a pixel followed by themselves."""
    by_pixel = leaf.reshape(*leaf.shape[:-1], pixels, -1)
    return jnp.concatenate([by_pixel, by_pixel], axis=-1).reshape(*leaf.shape[:-1], -1)
