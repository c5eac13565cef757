"""The discriminator of a run that distils Stable Diffusion: heads on the features of the teacher's U-Net.

Not a run. Its parameters stand beside the network's as "discriminator"; the U-Net below them is the teacher's, which
nobody trains.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from configs import stable
from configs.trajectories import HeadsOf
from models.feature_heads import FeatureHeads
from models.stable_unet import StableUNet
from train import Context, Params


def heads(model: StableUNet) -> FeatureHeads:
    """Four on each of the network's maps."""
    return FeatureHeads(groups=model.groups, dtype=model.dtype)


def heads_of(model: StableUNet, params: Params, context: Context, text: stable.Text, t: jax.Array) -> HeadsOf:
    """(params, x_t) -> what the heads say of states at these timesteps with these captions."""
    teacher = {"params": stable.teacher_weights(params, context)}

    def of(params: Params, x_t: jax.Array) -> tuple[jax.Array, ...]:
        _, seen = model.apply(teacher, x_t, t, text, mutable=["intermediates"])
        judged = heads(model).apply({"params": params["discriminator"]}, seen["intermediates"]["blocks"])
        return cast(tuple[jax.Array, ...], judged)

    return of


def added(config: ConfigDict, model: StableUNet, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of an Experiment with the discriminator's parameters and its own optimizer, AdamW without momentum."""
    network_init, network_initial = fields["init"], fields["initial"]

    def judge(key: jax.Array) -> Params:
        side = 2 ** (len(model.channels) - 1)
        x, text = jnp.zeros((1, side, side, model.latent_channels)), jnp.zeros((1, 1, model.text_features))
        shapes = jax.eval_shape(
            lambda key: model.init_with_output(key, x, jnp.zeros(1), text, mutable=["params", "intermediates"])[1], key
        )
        maps = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes["intermediates"]["blocks"]]
        return heads(model).init(key, maps)["params"]

    def init(key: jax.Array) -> Params:
        key_network, key_judge = jax.random.split(key)
        return network_init(key_network) | {"discriminator": judge(key_judge)}

    def initial() -> Params:
        return network_initial() | {"discriminator": judge(jax.random.key(config.seed))}

    adamw = optax.adamw(config.discriminator_rate, b1=0.0, weight_decay=config.weight_decay)
    players = {
        "student": fields["optimizer"],
        "discriminator": optax.chain(optax.clip_by_global_norm(config.clip), adamw),
    }

    def of(params: Params) -> dict[str, str]:
        return {name: "discriminator" if name == "discriminator" else "student" for name in params}

    return fields | {
        "init": init,
        "initial": None if network_initial is None else initial,
        "optimizer": optax.partition(players, of),
    }
