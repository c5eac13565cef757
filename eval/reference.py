"""What samples are judged against: real data seen through one feature extractor, and its file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from .compare import compare_halves
from .features import Features
from .npz import read_npz, write_npz
from .statistics import empty, mean_and_covariance, update

FORMAT_VERSION = 1


class Reference(NamedTuple):
    """Real data as one feature extractor sees it.

    Attributes:
        name: data set and split, as in "digits/train".
        features: the extractor.
        mean: of the features, [D].
        covariance: of the features with divisor n - 1, [D, D].
        n: number of real images; None if a foreign file does not say.
        sha256: of mean and covariance; two references with the same hash give the same distances.
        image_shape: (H, W, C) of the real images; None if a foreign file does not say.
        real: features of the real images, [n, D], for KID, precision and recall; None if only the moments
            are known, and then only the Fréchet distance is measured.
        floor: what one half of the real images scores against the other, by `real_floor`; empty if unknown.
    """

    name: str
    features: Features
    mean: Float64[np.ndarray, " dim"]
    covariance: Float64[np.ndarray, "dim dim"]
    n: int | None
    sha256: str
    image_shape: tuple[int, ...] | None = None
    real: Float32[np.ndarray, "n dim"] | None = None
    floor: Mapping[str, float] = MappingProxyType({})


def make_reference(name: str, features: Features, images: UInt8[np.ndarray, "n height width channels"]) -> Reference:
    """Measure real images.

    Raises:
        ValueError: fewer than 8 images, or features that are not finite.
    """
    real = features.extract(images)
    mean, covariance = mean_and_covariance(update(empty(real.shape[1]), real))
    return Reference(
        name=name,
        features=features,
        mean=mean,
        covariance=covariance,
        n=len(images),
        sha256=_sha256(mean, covariance),
        image_shape=images.shape[1:],
        real=real,
        floor=compare_halves(real),
    )


def write_reference(path: str | Path, reference: Reference, *, preprocessing: str, overwrite: bool = False) -> None:
    """Write the moments and what they are of, as npz with `mu` and `sigma`, which other tools read too.

    Args:
        path: file ending in .npz.
        reference: what to write; its real features are not.
        preprocessing: what was done to the images before the extractor, as "center crop, 64 pixels".
        overwrite: replace an existing file.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
    """
    dataset, _, split = reference.name.rpartition("/")
    write_npz(
        path,
        overwrite=overwrite,
        mu=reference.mean,
        sigma=reference.covariance,
        n=-1 if reference.n is None else reference.n,
        feature=reference.features.name,
        resize=reference.features.resize,
        dataset=dataset,
        split=split,
        resolution=np.asarray(reference.image_shape or (), dtype=np.int64),
        preprocessing=preprocessing,
        format_version=FORMAT_VERSION,
        sha256=reference.sha256,
    )


def read_reference(path: str | Path, features: Features, *, dim: int) -> Reference:
    """Read reference moments, ours or another project's (`mu`/`sigma` or `ref_mu`/`ref_sigma`).

    Pickled objects are not read. A foreign file without tags is taken at its word.

    Args:
        path: npz file.
        features: the extractor that the moments are of.
        dim: its dimension.

    Raises:
        FileNotFoundError: no such file.
        ValueError: keys are missing, tags name another extractor, or the moments cannot be a mean and a
            covariance of dimension `dim`; says which check failed.
    """
    facts = read_npz(path)
    for mean_key, covariance_key in (("mu", "sigma"), ("ref_mu", "ref_sigma")):
        if mean_key in facts and covariance_key in facts:
            break
    else:
        raise ValueError(f"{path}: expected mu and sigma, or ref_mu and ref_sigma; found {sorted(facts)}")
    mean, covariance = (np.asarray(facts[key], dtype=np.float64) for key in (mean_key, covariance_key))
    _check_moments(str(path), mean, covariance, dim)
    for key, expected in (("feature", features.name), ("resize", features.resize)):
        if key in facts and str(facts[key]) != expected:
            raise ValueError(f"{path}: {key} is {str(facts[key])!r}, expected {expected!r}")
    sha256 = _sha256(mean, covariance)
    if "sha256" in facts and str(facts["sha256"]) != sha256:
        raise ValueError(f"{path}: sha256 of mu and sigma is {sha256}, the file says {facts['sha256']}")
    n = int(facts["n"]) if "n" in facts else -1
    shape = tuple(int(side) for side in facts["resolution"]) if "resolution" in facts else ()
    tags = [str(facts[key]) for key in ("dataset", "split") if key in facts and str(facts[key])]
    name = "/".join(tags) or Path(path).stem
    return Reference(name, features, mean, covariance, n if n > 0 else None, sha256, shape or None)


def _check_moments(path: str, mean: np.ndarray, covariance: np.ndarray, dim: int) -> None:
    if mean.shape != (dim,) or covariance.shape != (dim, dim):
        raise ValueError(
            f"{path}: mean and covariance have shapes {mean.shape} and {covariance.shape}, "
            f"the features have dimension {dim}"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"{path}: mean or covariance holds NaN or infinite values")
    # Files hold float32 at times; 1e-6 of the largest entry is ten times its rounding.
    asymmetry = np.abs(covariance - covariance.T).max()
    if asymmetry > 1e-6 * np.abs(covariance).max():
        raise ValueError(f"{path}: the covariance is not symmetric, |S - S^T| reaches {asymmetry:.3g}")
    eigenvalues = np.linalg.eigvalsh(covariance)
    if eigenvalues[0] < -1e-6 * np.abs(eigenvalues).max():
        raise ValueError(
            f"{path}: the covariance is not positive semi-definite, its eigenvalues span "
            f"[{eigenvalues[0]:.3g}, {eigenvalues[-1]:.3g}]"
        )


def _sha256(mean: np.ndarray, covariance: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in (mean, covariance):
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()
