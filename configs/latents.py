"""Models of latents: what an autoencoder's config says of it, the pass that encodes its images, what a student gets.

Not a run. A student gives the folder that `main.py --mode=encode` wrote and the run of the autoencoder it was written
by; it is refused latents of another encoder, shape or scale. Its samplers return images.
"""

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

import data
import eval as evaluation
import train
from configs import glue
from configs.in_parts import in_parts

# On a device: the widest layers of Stable Diffusion's autoencoder have 512 bytes a pixel, and several are alive.
ENCODED_AT_A_TIME = 16 * 256 * 256
DECODED_AT_A_TIME = 16 * 32 * 32  # numbers of a channel, of which it makes 64 pixels each

LACKING = (
    "encode images with `python main.py --workdir RUN --mode=encode --out=FOLDER`, RUN being that of an autoencoder,"
    " and give --config.autoencoder_run=RUN --config.latents=FOLDER"
)


# ---- Autoencoders ----------------------------------------------------------------------------------------------------


class Autoencoder(NamedTuple):
    """What a config that trains an autoencoder says to those that use its latents, by its `autoencoder(config)`.

    Attributes:
        encode: (params, images in [-1, 1]) -> mean and log variance of their latents.
        decode: (params, latents) -> images.
        encoder: params -> those of them that the latents depend on.
        images: () -> the images it was trained on.
        average: the weights to take.
        scale_of: how models are to see its latents.
    """

    encode: Callable[[train.Params, jax.Array], tuple[jax.Array, jax.Array]]
    decode: Callable[[train.Params, jax.Array], jax.Array]
    encoder: Callable[[train.Params], train.Params]
    images: Callable[[], data.Source]
    average: str
    scale_of: data.ScaleOf


def read(workdir: str | Path) -> Autoencoder:
    """The autoencoder of a run; nothing of what was trained is read.

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if the run is of something else.
    """
    config_file, config = evaluation.read_run(workdir)
    module = evaluation.load_module(config_file)
    if not hasattr(module, "autoencoder"):
        raise ValueError(f"the run in {workdir} is of {config_file.name}, which does not train an autoencoder")
    return module.autoencoder(config)


def encode(
    workdir: str | Path,
    folder: str | Path,
    *,
    average: str | None = None,
    step: int | None = None,
    batch_size: int = 500,
) -> dict[str, Any]:
    """Encode the images that the autoencoder of a run was trained on, once for all; the record of `data.latents`.

    An interrupted call is gone on with by the same call.

    Args:
        workdir: of the run.
        folder: of the latents.
        average: which weights; those that its config names if None.
        step: which checkpoint; the newest if None.
        batch_size: images in one call, which is spread over the devices of this host and taken in parts.

    Raises:
        FileNotFoundError: there is no such run or checkpoint, or the images are not there.
        ValueError: the run is not of an autoencoder, or the folder holds other latents.
    """
    model = read(workdir)
    images = model.images()
    if isinstance(images, data.AbsentSource):
        images[0]  # says what to prepare
    average = average or model.average
    params, step = train.restore_average(workdir, average, step)
    height, width, _ = images.shape

    def moments(params: train.Params, image: jax.Array) -> tuple[jax.Array, jax.Array]:
        return cast(
            tuple[jax.Array, jax.Array],
            in_parts(
                lambda part: model.encode(params, data.to_model_range(part)),
                image,
                each=max(ENCODED_AT_A_TIME // (height * width), 1),
                devices=jax.local_device_count(),
            ),
        )

    return data.write_latents(
        folder,
        images,
        evaluation.over_devices(moments, params),
        encoder=_identity(workdir, model, params, average, step),
        scale_of=model.scale_of,
        batch_size=batch_size,
    )


def _identity(workdir: str | Path, model: Autoencoder, params: train.Params, average: str, step: int) -> dict[str, Any]:
    """Which encoder this is, in plain values."""
    config_file, config = evaluation.read_run(workdir)
    return {
        "sha256": sha256_of(model.encoder(params)),
        "config_file": config_file.name,
        "config": config.to_dict(),
        "average": average,
        "step": step,
    }


def sha256_of(params: train.Params) -> str:
    """Hash of the names, shapes, types and bits of parameters."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype}{list(leaf.shape)}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


# ---- Students --------------------------------------------------------------------------------------------------------


class Space(NamedTuple):
    """Where a model of latents lives.

    Attributes:
        source: the latents, or what is known of them while they are not there.
        scale: how the model sees them.
        decode: (params, latents as the model sees them) -> images in about [-1, 1].
        params: of the autoencoder, for `decode`; None while there is none.
        images: () -> the images that were encoded.
    """

    source: data.Source
    scale: data.Scale
    decode: Callable[[train.Params, jax.Array], jax.Array]
    params: train.Params
    images: Callable[[], data.Source]


def space(folder: str, autoencoder_run: str, *, shape: tuple[int, int, int], num_classes: int) -> Space:
    """The latents in a folder, checked against the autoencoder that shall decode them and the run they are for.

    Without both the run can be built and looked at, and says what it lacks when it is to be trained or sampled.

    Args:
        folder: that `encode` wrote.
        autoencoder_run: workdir of the autoencoder; it is read at the step and the average that encoded the images.
        shape: (height, width, channels) that the run needs.
        num_classes: classes that it needs.

    Raises:
        FileNotFoundError: there is no such folder, run or checkpoint.
        ValueError: one of the two is given alone; or the latents are of another encoder, shape or scale, or of other
            classes, with both values.
    """
    if not folder and not autoencoder_run:
        return _nowhere(shape, num_classes)
    if not folder or not autoencoder_run:
        raise ValueError(f"latents={folder!r} and autoencoder_run={autoencoder_run!r} go together: {LACKING}")
    written = data.latents(folder).record["encoder"]
    model = read(autoencoder_run)
    params, _ = train.restore_average(autoencoder_run, written["average"], written["step"])
    encoder = _identity(autoencoder_run, model, params, written["average"], written["step"])
    source = data.latents(folder, encoder=encoder, shape=shape, scale_of=model.scale_of)
    if source.num_classes != num_classes:
        raise ValueError(f"the latents in {folder} have {source.num_classes} classes, this run needs {num_classes}")
    scale = source.scale

    def decode(params: train.Params, z: jax.Array) -> jax.Array:
        return model.decode(params, data.from_model_scale(z, scale))

    return Space(source, scale, decode, params, model.images)


def _nowhere(shape: tuple[int, int, int], num_classes: int) -> Space:
    def lacking(*inputs: Any) -> Any:
        raise ValueError(f"this run needs latents: {LACKING}")

    unscaled = data.Scale((0.0,) * shape[-1], (1.0,) * shape[-1])
    return Space(data.absent("latents", shape, num_classes, LACKING), unscaled, lacking, None, lacking)


def latent_data(space: Space, *, seed: int, batch_size: int, num_classes: int | None = None) -> dict[str, Any]:
    """The fields of an Experiment that say what it is trained on: latents, drawn anew from their posteriors each time.

    As `glue.image_data`, in whose place it stands; the batch's `image` is the latent as the model sees it.
    """
    fields = glue.image_data(space.source, seed=seed, batch_size=batch_size, num_classes=num_classes)

    def prepare(key: jax.Array, batch: train.Batch) -> train.Batch:
        z = data.sample_posterior(key, batch["image"], batch["logvar"])
        labels = {"label": batch["label"]} if fields["num_classes"] else {}
        return {"image": data.to_model_scale(z, space.scale), **labels}

    latent = jax.ShapeDtypeStruct((batch_size, *space.source.shape), jnp.float32)
    like = {**fields["batch_like"], "image": latent, "logvar": latent}
    return {**fields, "prepare": prepare, "batch_like": like}


def decoded(samplers: Iterable[train.Sampler], space: Space) -> tuple[train.Sampler, ...]:
    """Samplers of latents as samplers of images; the decoder is not counted in their network evaluations."""

    def sample(
        latents_of: Callable[..., jax.Array], params: train.Params, keys: jax.Array, labels: jax.Array
    ) -> jax.Array:
        # The decoder's parameters are constants of the program; with Stable Diffusion's it takes long to compile.
        # It takes more memory than the network that made the latents, and so not all of them at a time.
        z = latents_of(params, keys, labels)
        decode = partial(space.decode, space.params)
        devices, (_, height, width, _) = jax.device_count(), z.shape
        each = max(DECODED_AT_A_TIME // (height * width) // devices, 1)
        return cast(jax.Array, in_parts(decode, z, each=each, devices=devices))

    return tuple(sampler._replace(sample=partial(sample, sampler.sample)) for sampler in samplers)
