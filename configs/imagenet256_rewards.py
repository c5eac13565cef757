"""What the runs share that tune a flow of ImageNet-256's latents towards images like some that are given.

Not a run. A latent is rewarded with the likeness of its decoded image to the images in config.liked, a folder or an npz
file: the cosine between DINOv2's class token and the mean of theirs, each at unit length. DINOv2 is published and needs
no names of classes; the one classifier that can be converted, FID's Inception, has 1008 outputs of which we do not know
which class of ImageNet each is.

Of the latents in a batch only the classes are used: that is what trajectories are asked for, without guidance, and some
for the null class, so that samples can be guided as the flow's are. What is rewarded by DINOv2 should be judged by
another network: --config.judged_features='("inception",)'.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

import data
import eval as evaluation
from configs import flows, glue, guiding, imagenet256, imagenet256_sit, latents, rewards
from configs.feature_networks import DINOV2
from configs.in_parts import in_parts
from losses import linear, transitions
from losses.adjoint_matching import Reward
from losses.transitions import Transitions, Variance
from losses.types import Loss, Net
from models import preconditioning
from samplers import grids
from train import Batch, Context, Experiment, Params, averages

SIDE = 256  # pixels of the images in a folder, after a centre crop
LIKED_AT_A_TIME = 50
REWARDED_AT_A_TIME = 4  # on a device: the gradient takes 2.1 GiB an image in Stable Diffusion's decoder and ViT-L/14


def get_config(size: str = "XL") -> ConfigDict:
    """SiT's network and samplers, and what all three methods are given: Adjoint Matching's chain, batch and rate.

    Raises:
        ValueError: naming the sizes that there are.
    """
    config = imagenet256_sit.get_config(size)
    config.update(
        {
            "liked": "",
            "reward_weights": "",  # DINOv2, a file or a folder that one was converted to; fetched once if not given
            "chain_steps": 40,
            "bfloat16": False,  # what is tuned differs little from the flow
            "steps": 1_000,
            "batch_size": 40,
            "learning_rate": 2e-5,
            "average_decay": 0.99,
            "log_every": 10,
            "checkpoint_every": 100,
        }
    )
    return config


def chain(config: ConfigDict, *, variance: Variance = transitions.memoryless) -> Transitions:
    """Trajectories from noise to data in equal steps, with the paper's offset of a step; the last one adds no noise."""
    n = config.chain_steps
    return transitions.euler_maruyama(linear, grids.linear(n), offset=1 / n, variance=variance)


def experiment(config: ConfigDict, tuning: rewards.Tuning, *, compared: bool = True) -> Experiment:
    """The experiment of these values and of a way to tune, which may have no use for the flow beside the tuned one."""
    check_null_class(config)
    space = imagenet256.space(config)
    source = space.source
    model = imagenet256_sit.network(config, source.num_classes)
    start = flows.start(config, model, source)
    liking = likeness(config, space)

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return preconditioning.velocity(glue.bind(model, params, labels))

    def remembering_little(net: Net, base: Net, reward: Reward, x: jax.Array, key: jax.Array) -> Loss:
        # One call of the network is computed again at a time: those of all matched steps are more than a chip holds.
        return tuning(jax.checkpoint(net), base, reward, x, key)

    tuned = rewards.objective(velocity, liking.reward, remembering_little)

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        key_loss, key_labels = jax.random.split(key)
        labels = guiding.drop_labels(key_labels, batch["label"], source.num_classes, config.label_dropout)
        return tuned(params, {**batch, "label": labels}, key_loss, context)

    def frozen() -> Params:
        if not start:
            flows.lacking_flow()
        return {"reward": liking.params(), "flow": start["initial"]() if compared else None}

    samplers = imagenet256_sit.samplers(config, velocity, source)
    return Experiment(
        init=glue.initialiser(model, source),
        **start,
        frozen=frozen,
        objective=objective,
        optimizer=optax.adam(config.learning_rate, b1=0.95, b2=0.999),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        **imagenet256.fields(config, space, samplers, drawn=1),
    )


def check_null_class(config: ConfigDict) -> None:
    """That the flow has seen the null class, if trajectories or samples ask for it.

    Raises:
        ValueError: it has not.
    """
    guiding.check_null_class(config, config.guidance)
    asked = config.label_dropout or config.guidance != 1
    if config.teacher_run and asked and not flows.read(config.teacher_run).flow.guidable:
        raise ValueError(
            f"the flow in {config.teacher_run} was trained without label_dropout and never saw the null class:"
            " tune it with --config.label_dropout=0 --config.guidance=1"
        )


# ---- The reward ------------------------------------------------------------------------------------------------------


class Likeness(NamedTuple):
    """A reward with frozen parameters of its own: how they are read, and what they make."""

    params: Callable[[], Any]
    reward: Callable[[Any], Reward]


def likeness(config: ConfigDict, space: latents.Space) -> Likeness:
    """Cosine of DINOv2's class token of a decoded latent and the mean of those of the images in config.liked.

    Raises:
        FileNotFoundError: the images are not there; or, when the parameters are read, the weights.
        ValueError: what is there is no images; or, when the parameters are read, none are given, or the weights are of
            another network.
    """
    images = liked(config.liked)

    @cache
    def network() -> tuple[Callable[[Any, jax.Array], Any], Any]:
        apply, params = DINOV2.load(evaluation.find_weights(DINOV2.weights, config.reward_weights or None))
        return apply, jax.tree.map(np.asarray, params)  # on the host, since a run has a copy on its devices

    def features(params: Any, images: jax.Array) -> jax.Array:
        apply, _ = network()
        found = DINOV2.outputs["dinov2"](apply(params, DINOV2.resizes["bicubic"].device(images)))
        return found / jnp.linalg.norm(found, axis=-1, keepdims=True)

    def params() -> Any:
        if images is None:
            raise ValueError("this run needs images to be like: give a folder or an npz file with --config.liked=PATH")
        _, weights = network()
        return {"decoder": space.params, "network": weights, "liked": mean_of(features, weights, images)}

    def reward(params: Any) -> Reward:
        def of(z: jax.Array) -> jax.Array:
            decoded = jnp.clip(space.decode(params["decoder"], z), -1, 1)
            return (features(params["network"], 127.5 * (decoded + 1)) * params["liked"]).sum(axis=-1)

        def in_memory(z: jax.Array) -> jax.Array:
            parts = in_parts(jax.checkpoint(of), z, each=REWARDED_AT_A_TIME, devices=jax.device_count())
            return cast(jax.Array, parts)

        return in_memory

    return Likeness(params, reward)


def liked(path: str) -> data.Source | None:
    """The images in an npz file, as they are, or in a folder, centre-cropped; None if there is no path.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: there is no image.
    """
    if not path:
        return None
    found = Path(path).expanduser()
    if not found.exists():
        raise FileNotFoundError(f"liked={path}: no such folder of images or npz file")
    images = data.folder(found, size=SIDE) if found.is_dir() else data.npz(found)
    if len(images) == 0:
        raise ValueError(f"liked={path}: holds no images, it must have at least one")
    return images


def mean_of(features: Callable[[Any, jax.Array], jax.Array], params: Any, images: data.Source) -> np.ndarray:
    """Of the features of images, at unit length; of several processes that of the first, since others may round it."""
    of = evaluation.over_devices(features, params)
    total = np.float32(0)
    for start in range(0, len(images), LIKED_AT_A_TIME):
        part = range(start, min(start + LIKED_AT_A_TIME, len(images)))
        total = total + of(np.stack([images[index]["image"] for index in part])).sum(axis=0)
    return np.asarray(multihost_utils.broadcast_one_to_all(total / np.linalg.norm(total)))
