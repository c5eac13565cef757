r"""Stable Diffusion's autoencoder from a folder of the diffusers library, as a run whose latents others are trained on.

    python main.py --config configs/diffusers_autoencoder.py --workdir runs/diffusers_autoencoder \
        --config.weights=sd-vae-ft-mse --config.path=IMAGES --config.size=256
    python main.py --workdir runs/diffusers_autoencoder --mode=encode --out=runs/latents
    python main.py --config configs/diffusers_autoencoder.py:edm2 --workdir runs/edm2_autoencoder \
        --config.weights=sd-vae-ft-mse --config.path=IMAGES --config.size=512

Rombach et al. 2022. `weights` is `vae` in a pipeline, with config.json and safetensors; `path` is a folder of images,
with or without a sub-folder for each class, or an npz file. The first command takes no step: it writes the weights
where the second one and the students look for them, with --config.autoencoder_run=runs/diffusers_autoencoder. With
--config.steps=N it tunes them to the images, without LPIPS and a discriminator.

By :edm2 the latents are those of EDM2: the encoder sees images in [0, 1], and each channel is standardised to 0.5 by
the numbers of EDM2's code. With --config.latent_std=0.5 alone, those of IMM: images in [-1, 1], and the numbers of the
data themselves.

Numbers: not run.
"""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

import data
import eval as evaluation
import train
from configs import glue, latents, own_images
from losses.autoencoding import autoencoding
from losses.types import Loss
from models.autoencoder import Autoencoder
from models.pretrained.stable_autoencoder import read_autoencoder, read_network
from train import Batch, Context, Experiment, Params, averages

# What models see of latents, and the encoder of black.
CONVENTIONS: dict[str, dict[str, Any]] = {
    "stable": {"scale": 0.18215, "latent_std": 0.0, "channel_mean": (), "channel_std": (), "black": -1.0},
    "edm2": {
        "scale": 0.0,
        "latent_std": 0.5,
        "channel_mean": (5.81, 3.25, 0.12, -2.15),
        "channel_std": (4.17, 4.62, 3.71, 3.28),
        "black": 0.0,
    },
}


def get_config(convention: str = "stable") -> ConfigDict:
    """The values of the run; any of them can be given on the command line.

    Raises:
        ValueError: naming the conventions that there are.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention is {convention!r}, there are {', '.join(CONVENTIONS)}")
    return ConfigDict(
        {
            "seed": 0,
            "weights": "",
            "path": "",
            "size": 0,  # pixels a side after a centre crop; 0 takes the files as they are
            # Models see latents multiplied by scale, or, if there is a latent_std, standardised to it, by these numbers
            # or by those of the data; the encoder sees images from black, -1 or 0, to 1.
            **CONVENTIONS[convention],
            "steps": 0,
            "batch_size": 8,
            "kl_weight": 1e-6,
            "learning_rate": 1e-5,
            "average_decay": 0.999,
            "judged_samples": 16,
            "log_every": 50,
            "checkpoint_every": 1000,
        }
    )


def network(config: ConfigDict) -> Autoencoder:
    """The network of the folder, or Stable Diffusion's as long as there is none."""
    return read_network(config.weights) if config.weights else Autoencoder()


def scale_of(config: ConfigDict) -> data.ScaleOf:
    """How models see its latents.

    Raises:
        ValueError: numbers of some channels and not of others.
    """
    if not config.latent_std:
        return partial(data.multiplied, by=config.scale)
    known = (tuple(config.channel_mean), tuple(config.channel_std))
    if not any(known):
        return partial(data.standardised, to=config.latent_std)
    if len(known[0]) != len(known[1]):
        raise ValueError(f"channel_mean={known[0]} and channel_std={known[1]} are of other numbers of channels")
    return lambda mean, std: data.standardised(*known, to=config.latent_std)


def autoencoder(config: ConfigDict) -> latents.Autoencoder:
    """What this run is to models of its latents."""
    model = network(config)
    black = config.black

    def encode(params: Params, images: jax.Array) -> Any:
        seen = (images * (1.0 - black) + (1.0 + black)) / 2.0
        return model.apply({"params": params}, seen, method="encode")

    def decode(params: Params, z: jax.Array) -> jax.Array:
        seen = cast(jax.Array, model.apply({"params": params}, z, method="decode"))
        return (2.0 * seen - (1.0 + black)) / (1.0 - black)

    return latents.Autoencoder(
        encode=encode,
        decode=decode,
        encoder=lambda params: params["encoder"],
        images=partial(own_images.source, config),
        average="ema",
        scale_of=scale_of(config),
    )


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    images = own_images.source(config)
    module, model = network(config), autoencoder(config)

    def weights() -> Params:
        if not config.weights:
            raise ValueError("give --config.weights: a folder of an autoencoder of diffusers, `vae` in a pipeline")
        return read_autoencoder(config.weights)[1]["params"]

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        encode, decode = partial(model.encode, params), partial(model.decode, params)
        return autoencoding(encode, decode, batch["image"], key, kl_weight=config.kl_weight)

    def reconstruct(params: Params, keys: jax.Array, labels: jax.Array) -> jax.Array:
        """One of the first images for each key, encoded and decoded."""
        some = jnp.stack([images[i]["image"] for i in range(min(len(images), config.judged_samples))])
        rows = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(some)))(keys)
        mean, _ = model.encode(params, data.to_model_range(some[rows]))
        return model.decode(params, mean)

    return Experiment(
        init=lambda key: module.init(key, jnp.zeros((1, *images.shape)))["params"],
        initial=weights,
        objective=objective,
        optimizer=optax.adam(config.learning_rate),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        samplers=(train.Sampler("reconstruction of images", 2, reconstruct),),
        judge=partial(evaluation.judge, references=()),
        judged_average="ema",
        judged_samples=config.judged_samples,
        steps=config.steps,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        **glue.image_data(images, seed=config.seed, batch_size=config.batch_size, num_classes=0),
    )
