"""Editing with a consistency function that was never trained to edit.

A task says, in an orthonormal basis, which coefficients of a reference image stay and which are generated.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ._shapes import Bool, Float
from .consistency import multistep_consistency
from .noise import initial
from .types import Array, Batch, Keys, Net, Path, PerExample, Times, check_times

HIGHEST = jax.lax.Precision.HIGHEST  # of products in a change of basis: what is known must not lose digits


class Task(NamedTuple):
    """What to keep of a reference.

    Attributes:
        transform: A, from a batch of images to their coefficients in an orthonormal basis, [B, ...] both.
        inverse: A^-1, back again.
        mask: Omega, True where a coefficient is generated: their shape with or without the batch axis, an axis of
            length 1 stands for all along it.
    """

    transform: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    mask: Bool[Array | np.ndarray, "*coefficients"]


# ---- Sampling --------------------------------------------------------------------------------------------------------


def edit(
    net: Net, reference: Batch, times: Times, keys: Keys, *, task: Task, path: Path, sigma_min: float = 0.0
) -> Batch:
    """`multistep_consistency` in which every denoised image gets the known coefficients of the reference, the last too.

    It starts from the reference with its unknown coefficients 0, noised to times[0] by `noise.initial` of the keys.

    Even with the exact f the result is no exact sample given what is known. On Gaussian data calls at one time t again
    and again lead to a law between the prior (t large, what is known drowns in noise) and that posterior, from which
    they stay O(t^2) away: many times that come down slowly are needed where the unknown depends on the known.

    Args:
        net: Consistency function f(x, t), an estimate of the data at the end of the trajectory.
        reference: Images, [B, ...]; only their known coefficients are read.
        times: Descending times at which f is called.
        keys: One key for each sample, [B].
        task: What is known: `inpainting(mask)`, `colourisation()`, `super_resolution(patch)`, or one's own.
        path: Where to noise to: alpha(t) x + sigma(t) z.
        sigma_min: As in `multistep_consistency`.

    Source: Song et al. 2023, alg. 4.

    Raises:
        ValueError: for times as in `multistep_consistency`, another number of keys than of references, references that
            the task's basis cannot take, or a mask that does not fit their coefficients.
    """
    known = known_part(reference, task)
    coefficients = task.transform(known)

    def denoise_and_replace(x_t: Array, t: Array) -> Array:
        return task.inverse(jnp.where(task.mask, task.transform(net(x_t, t)), coefficients))

    x = _noised(known, times, keys, path=path, sigma_min=sigma_min)
    return multistep_consistency(denoise_and_replace, x, times, keys, path=path, sigma_min=sigma_min)


def known_part(reference: Batch, task: Task) -> Batch:
    """The reference with its unknown coefficients 0: what `edit` sees of it.

    Raises:
        ValueError: if the basis cannot take such images, or the mask does not fit their coefficients.
    """
    coefficients = task.transform(reference)
    _check_mask(task.mask, coefficients.shape)
    return task.inverse(jnp.where(task.mask, 0.0, coefficients)).astype(reference.dtype)


def stroke_guided(net: Net, reference: Batch, times: Times, keys: Keys, *, path: Path, sigma_min: float = 0.0) -> Batch:
    """Noise a crude painting to times[0] and sample on from there: SDEdit (Meng et al. 2021) with f.

    All of it is generated. Lower times[0] stay closer to the painting. Arguments and errors as in `edit`.
    """
    x = _noised(reference, times, keys, path=path, sigma_min=sigma_min)
    return multistep_consistency(net, x, times, keys, path=path, sigma_min=sigma_min)


def denoise(net: Net, noisy: Batch, t: PerExample, *, path: Path) -> Batch:
    """Remove Gaussian noise of standard deviation sigma(t) / alpha(t) from images x + n, one call of f.

    Args:
        net: Consistency function f(x, t).
        noisy: Images [B, ...].
        t: Their noise level as a time, [B]; alpha must be positive there.
        path: x_t = alpha x + sigma z.
    """
    alpha = path.alpha(t).reshape(t.shape + (1,) * (noisy.ndim - 1))
    return net(alpha * noisy, t).astype(noisy.dtype)


def interpolate_noise(a: Batch, b: Batch, share: PerExample) -> Batch:
    """Spherical interpolation from noise a at share 0 to b at share 1; sigma(T) times it is a start for one step.

    A straight line would pass through vectors shorter than any noise. At equal norms this one keeps the norm.

    Args:
        a: Noise [B, ...], not zero.
        b: Noise [B, ...], not zero and not opposite to a.
        share: How far to go from a to b, [B].

    Source: Song et al. 2023.
    """
    axes = tuple(range(1, a.ndim))
    squared_a, squared_b = (jnp.sum(z**2, axes, keepdims=True) for z in (a, b))
    cosine = jnp.sum(a * b, axes, keepdims=True) / jnp.sqrt(squared_a * squared_b)
    # At the bound the weights are those of a straight line to 6 digits, and sin(angle) is not 0.
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-6, 1 - 1e-6))
    share = share.reshape(share.shape + (1,) * (a.ndim - 1))
    return (jnp.sin((1 - share) * angle) * a + jnp.sin(share * angle) * b) / jnp.sin(angle)


# ---- Tasks -----------------------------------------------------------------------------------------------------------


def inpainting(mask: Bool[Array | np.ndarray, "*shape"]) -> Task:
    """Generate the pixels where the mask, [H, W, 1] or [H, W, C] or [B, H, W, C], is True."""
    return Task(lambda x: x, lambda x: x, mask)


def colourisation() -> Task:
    """Generate the colour of RGB images [B, H, W, 3], keep their luma 0.299 R + 0.587 G + 0.114 B.

    A grey image is a reference when repeated over the three channels.
    """
    reflect = _reflection(np.asarray([0.299, 0.587, 0.114]))

    def change(x: Array) -> Array:
        if x.ndim != 4 or x.shape[-1] != 3:
            raise ValueError(f"colourisation takes RGB images [B, H, W, 3], got shape {x.shape}")
        return jnp.einsum("bhwc,dc->bhwd", x, jnp.asarray(reflect, x.dtype), precision=HIGHEST)

    return Task(change, change, np.asarray([False, True, True]).reshape(1, 1, 3))


def super_resolution(patch: int) -> Task:
    """Generate detail of images [B, H, W, C], keep the mean of every square of patch x patch pixels.

    A small image is a reference when every pixel is repeated to such a square.

    Raises:
        ValueError: for a patch below 2; when used, for images whose sides it does not divide.
    """
    if patch < 2:
        raise ValueError(f"patch must be at least 2 pixels, got {patch}")
    reflect = _reflection(np.ones(patch**2))

    def change(x: Array) -> Array:
        """[B, H/p, W/p, p p, C], pixels to coefficients or back."""
        return jnp.einsum("bhwpc,qp->bhwqc", x, jnp.asarray(reflect, x.dtype), precision=HIGHEST)

    def transform(x: Array) -> Array:
        if x.ndim != 4 or x.shape[1] % patch or x.shape[2] % patch:
            raise ValueError(f"{patch=} must divide height and width of images [B, H, W, C], got shape {x.shape}")
        n, height, width, channels = x.shape
        tiles = x.reshape(n, height // patch, patch, width // patch, patch, channels).swapaxes(2, 3)
        return change(tiles.reshape(n, height // patch, width // patch, patch**2, channels))

    def inverse(coefficients: Array) -> Array:
        n, rows, columns, _, channels = coefficients.shape
        tiles = change(coefficients).reshape(n, rows, columns, patch, patch, channels).swapaxes(2, 3)
        return tiles.reshape(n, rows * patch, columns * patch, channels)

    return Task(transform, inverse, (np.arange(patch**2) > 0).reshape(1, 1, patch**2, 1))


def _reflection(first: np.ndarray) -> Float[np.ndarray, "n n"]:
    """The Householder matrix whose first row has the direction of `first`; symmetric, so it is its own inverse."""
    unit = first / np.linalg.norm(first)
    normal = unit - np.eye(len(unit))[0]
    return np.eye(len(unit)) - 2 * np.outer(normal, normal) / (normal @ normal)


def _noised(x: Batch, times: Times, keys: Keys, *, path: Path, sigma_min: float) -> Batch:
    """The start: alpha x + sigma z at times[0]."""
    start = jnp.asarray(check_times(times, end=sigma_min)[0], jnp.result_type(float))
    if len(keys) != len(x):
        raise ValueError(f"editing needs one key for each reference image, got {len(keys)} keys for {len(x)} images")
    noise = initial(keys, x.shape[1:])
    return (path.alpha(start) * x + path.sigma(start) * noise).astype(x.dtype)


def _check_mask(mask: Array | np.ndarray, shape: tuple[int, ...]) -> None:
    """Broadcasting alone would take a mask [H, W] for one of columns and channels."""
    if mask.dtype != bool:
        raise ValueError(f"a mask is boolean, True where to generate, got {mask.dtype}")
    padded = mask.shape if mask.ndim == len(shape) else (1, *mask.shape)
    fits = len(padded) == len(shape) and all(m in (1, n) for m, n in zip(padded, shape, strict=True))
    if not fits:
        raise ValueError(f"a mask for coefficients {shape} is {shape[1:]}, or that with a batch axis, got {mask.shape}")
