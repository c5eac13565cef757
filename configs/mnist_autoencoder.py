r"""A KL autoencoder on MNIST (Rombach et al. 2022): 32 x 32 pixels, a border of two included, to latents of 8 x 8 x 4.

    python main.py --config configs/mnist_autoencoder.py --workdir runs/mnist_autoencoder --config.data_dir=DIR
    python main.py --workdir runs/mnist_autoencoder --mode=encode --out=runs/mnist_latents

What the models of MNIST's latents live in. Its "samples" are reconstructions of held-out images, and train.jsonl has
their error: `held_out_mse`, of pixels in [-1, 1], `held_out_psnr` in dB, and `held_out_kl` in nats per image. The size
and the budget are ours, for minutes on two CPU cores.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import data
import eval as evaluation
import train
from configs import distances, glue, judges, latents, mnist
from losses.adversarial import hinge_discriminator, hinge_generator
from losses.autoencoding import Adversary, autoencoding, kl_to_normal
from losses.types import Loss
from models.attention import softmax_attention
from models.autoencoder import Autoencoder
from models.autoencoder_discriminator import PatchDiscriminator
from train import Batch, Context, Experiment, Params, averages

COLUMNS, ROWS = 10, 6  # of the picture, every other row the reconstructions of the one above


def get_config() -> ConfigDict:
    """The values of the run; any of them can be given on the command line."""
    return ConfigDict(
        {
            "seed": 0,
            "data_dir": "~/tensorflow_datasets",
            "pad": 2,  # black pixels on every side
            "flip": False,
            "steps": 1500,
            "batch_size": 64,
            # network
            "channels": 8,
            "multipliers": (1, 2, 4),
            "blocks": 1,
            "latent_channels": 4,
            "groups": 4,
            "attention": False,
            "bfloat16": False,
            # loss
            "kl_weight": 1e-6,
            "lpips": "",  # weights of a perceptual distance; without them there is none
            "adversarial_weight": 0.0,  # 0.5 in latent diffusion; 0 is no discriminator
            "adversarial_start": 0,  # steps before it counts
            # what models of the latents see: each channel of this standard deviation, and mean 0
            "latent_std": 0.5,
            # optimizer
            "learning_rate": 2e-3,
            "betas": (0.9, 0.99),
            "warmup_steps": 100,
            "average_decay": 0.99,
            # judging
            "judged_samples": 2000,
            "held_out": 5000,
            "log_every": 50,
            "report_every": 500,
            "checkpoint_every": 500,
        }
    )


def source(config: ConfigDict, split: str = "train") -> data.ArraySource:
    """The images with their border."""
    images = mnist.source(config, split)
    border = ((0, 0), (config.pad, config.pad), (config.pad, config.pad), (0, 0))
    name = f"{images.name}, border {config.pad}"
    return data.ArraySource(name, np.pad(images.image, border), images.label, images.num_classes)


def build(config: ConfigDict) -> Experiment:
    """The experiment of these values."""
    return experiment(config, source(config), partial(source, config, "test"))


def autoencoder(config: ConfigDict) -> latents.Autoencoder:
    """What this run is to models of its latents."""
    return autoencoder_of(config, partial(source, config), channels=1)


# ---- The same on any images ------------------------------------------------------------------------------------------


def network(config: ConfigDict, channels: int) -> Autoencoder:
    """The autoencoder of images with this many channels."""
    return Autoencoder(
        channels=config.channels,
        multipliers=tuple(config.multipliers),
        blocks=config.blocks,
        latent_channels=config.latent_channels,
        image_channels=channels,
        groups=config.groups,
        attention=softmax_attention if config.attention else None,
        dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32,
    )


def autoencoder_of(config: ConfigDict, images: Callable[[], data.Source], *, channels: int) -> latents.Autoencoder:
    """What a run on these images is to models of its latents."""
    model = network(config, channels)

    def apply(method: str, params: Params, inputs: jax.Array) -> Any:
        return model.apply({"params": params["autoencoder"]}, inputs, method=method)

    return latents.Autoencoder(
        encode=partial(apply, "encode"),
        decode=partial(apply, "decode"),
        encoder=lambda params: params["autoencoder"]["encoder"],
        images=images,
        average="ema",
        scale_of=partial(data.standardised, to=config.latent_std),
    )


def experiment(config: ConfigDict, images: data.Source, held_out: Callable[[], data.Source]) -> Experiment:
    """The experiment on any images, judged by reconstructions of held-out ones."""
    channels = images.shape[-1]
    model = autoencoder_of(config, lambda: images, channels=channels)
    judge = PatchDiscriminator(channels=config.channels, layers=1, groups=config.groups)
    metric = distances.lpips_or_l2(config.lpips)

    @cache
    def real() -> np.ndarray:
        return data.cached(held_out()).image[: config.held_out]

    def init(key: jax.Array) -> Params:
        key_model, key_judge = jax.random.split(key)
        x = jnp.zeros((1, *images.shape))
        params = {"autoencoder": network(config, channels).init(key_model, x)["params"]}
        return params | ({"discriminator": judge.init(key_judge, x)["params"]} if config.adversarial_weight else {})

    def adversary(params: Params, step: jax.Array) -> Adversary:
        def logits(params: Params, x: jax.Array) -> Any:
            return judge.apply({"params": params}, x)

        def players(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
            y_constant = jax.lax.stop_gradient(y)
            fooled = hinge_generator(logits(jax.lax.stop_gradient(params), y))
            told = hinge_discriminator(logits(params, x), logits(params, y_constant))
            started = step >= config.adversarial_start
            return started * fooled, started * told

        return players

    def objective(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        return autoencoding(
            partial(model.encode, params),
            partial(model.decode, params),
            batch["image"],
            key,
            kl_weight=config.kl_weight,
            perceptual=metric.distance(context.frozen) if config.lpips else None,
            adversary=adversary(params["discriminator"], context.step) if config.adversarial_weight else None,
            adversarial_weight=config.adversarial_weight,
        )

    def reconstruct(params: Params, keys: jax.Array, labels: jax.Array) -> jax.Array:
        """A held-out image for each key, encoded and decoded."""
        x = jnp.asarray(real())
        rows = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(x)))(keys)
        mean, _ = model.encode(params, data.to_model_range(x[rows]))
        return model.decode(params, mean)

    b1, b2 = config.betas
    warmup_steps = min(config.warmup_steps, config.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup_steps, max(config.steps, 1))
    return Experiment(
        init=init,
        objective=objective,
        optimizer=optax.adam(rate, b1=b1, b2=b2),
        averages={"ema": partial(averages.constant, decay=config.average_decay)},
        samplers=(train.Sampler("reconstruction of held-out images", 2, reconstruct),),
        periodic=(reconstructions(model, real, every=config.report_every),),
        judge=judges.pixel_judge(images),
        judged_average="ema",
        judged_samples=config.judged_samples,
        steps=config.steps,
        frozen=metric.params,
        log_every=config.log_every,
        checkpoint_every=config.checkpoint_every,
        **glue.image_data(
            images,
            seed=config.seed,
            batch_size=config.batch_size,
            flip=config.flip,
            num_classes=0,
            in_memory=True,
        ),
    )


def reconstructions(
    model: latents.Autoencoder, real: Callable[[], np.ndarray], *, every: int, batch_size: int = 500
) -> train.Periodic:
    """Mean squared error, its ratio to the range of pixels in dB and the divergence, on held-out images; a picture."""

    @jax.jit
    def measure(params: Params, image: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        x = data.to_model_range(image)
        mean, logvar = model.encode(params, x)
        y = jnp.clip(model.decode(params, mean), -1, 1)
        return y, jnp.mean((y - x) ** 2, axis=(1, 2, 3)), kl_to_normal(mean, logvar)

    def run(workdir: Path, step: int, params: dict[str, Params]) -> dict[str, float]:
        images, shown = real(), COLUMNS * ROWS // 2
        batches = [measure(params["ema"], images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
        _, errors, divergences = (
            np.concatenate([evaluation.whole(part) for part in parts]) for parts in zip(*batches, strict=True)
        )
        if len(images) >= shown and train.is_first():
            pairs = np.stack([images[:shown], evaluation.to_uint8(evaluation.whole(batches[0][0])[:shown])])
            rows = pairs.reshape(2, ROWS // 2, COLUMNS, *images.shape[1:]).swapaxes(0, 1)
            (workdir / "grids").mkdir(exist_ok=True)
            picture = evaluation.grid(rows.reshape(-1, *images.shape[1:]), ROWS, COLUMNS)
            picture.save(workdir / "grids" / f"{step:07d}.png")
        error = float(errors.mean())
        return {
            "held_out_mse": error,
            "held_out_psnr": float(10 * np.log10(4 / error)),
            "held_out_kl": float(divergences.mean()),
        }

    return train.Periodic(every, run, name="the reconstruction of held-out images")
