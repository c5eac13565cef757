"""Files of reference moments: ours with all that they depend on, and those of other projects. Nothing is unpickled.

Known layouts, each as npz: `mu`, `sigma` (EDM, clean-fid), `ref_mu`, `ref_sigma` (MeanFlow), `arr_0` with `mu`,
`sigma`, `mu_s`, `sigma_s` (ADM), `pool_3` or `feats` (activations, of score_sde and of clean-fid's KID), and EDM2's
mapping of `fid` and `fd_dinov2` to moments, which its own files pickle: a reader of those is given as `read`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .features import Features
from .names import POOL, SPATIAL
from .npz import read_npz, write_npz
from .real import Reference, moments_sha256
from .sets import Compare, compare_sets
from .statistics import empty, mean_and_covariance, update

FORMAT_VERSION = 2
READABLE = (1, FORMAT_VERSION)
MOMENTS = (("mu", "sigma"), ("ref_mu", "ref_sigma"))
# ADM keeps moments of the spatial features beside those of the pool, OpenAI's files those of CLIP as well.
MOMENTS_OF = {SPATIAL: (("mu_s", "sigma_s"),), "clip": (("mu_clip", "sigma_clip"),)}
ACTIVATIONS = ("pool_3", "feats")
NESTED = {POOL: "fid", "dinov2": "fd_dinov2"}

Read = Callable[[Path], Mapping[str, Any]]


class Found(NamedTuple):
    """Moments, how many images they are of if that is known, the activations if there are any, and the layout."""

    mean: np.ndarray
    covariance: np.ndarray
    n: int | None
    real: np.ndarray | None
    layout: str


def write_reference(
    path: str | Path,
    reference: Reference,
    *,
    preprocessing: str,
    images_sha256: str = "",
    overwrite: bool = False,
) -> None:
    """Write the moments and what they are of, as npz with `mu` and `sigma`, which other tools read too.

    Args:
        path: file ending in .npz.
        reference: what to write; its real features are not.
        preprocessing: what was done to the images before the extractor, as "center crop, 64 pixels".
        images_sha256: of the images that were measured; empty if unknown.
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
        weights_sha256=reference.features.weights,
        dataset=dataset,
        split=split,
        resolution=np.asarray(reference.image_shape or (), dtype=np.int64),
        preprocessing=preprocessing,
        images_sha256=images_sha256,
        format_version=FORMAT_VERSION,
        sha256=reference.sha256,
    )


def read_reference(
    path: str | Path,
    features: Features,
    *,
    dim: int | None = None,
    read: Read = read_npz,
    compare: Compare = compare_sets,
) -> Reference:
    """Read reference moments, ours or another project's.

    Pickled objects are not read. A foreign file without tags is taken at its word: that it is of this extractor, at
    this resize; its layout stands in the `provenance` of what is returned.

    Args:
        path: the file.
        features: the extractor that the moments are of.
        dim: its dimension; if None, only that of the samples will tell whether it is the file's.
        read: file -> arrays by name, or mappings of them; of another container than npz.
        compare: measures of features, where the file holds activations.

    Raises:
        FileNotFoundError: no such file.
        ValueError: keys are missing, tags name another extractor, resize or weights, or the moments cannot be a mean
            and a covariance of dimension `dim`; says which check failed.
    """
    facts = dict(read(Path(path)))
    _check_tags(str(path), facts, features)
    found = _find(str(path), facts, features.name)
    mean, covariance, n, real, layout = found
    _check_moments(str(path), mean, covariance, dim, facts)
    sha256 = moments_sha256(mean, covariance)
    if "sha256" in facts and str(facts["sha256"]) != sha256:
        raise ValueError(f"{path}: sha256 of mu and sigma is {sha256}, the file says {facts['sha256']}")
    shape = tuple(int(side) for side in facts["resolution"]) if "resolution" in facts else ()
    tags = [str(facts[key]) for key in ("dataset", "split") if key in facts and str(facts[key])]
    name = "/".join(tags) or Path(path).stem
    untagged = "" if "resize" in facts else ", which does not say its feature and resize"
    return Reference(
        name,
        features,
        mean,
        covariance,
        n,
        sha256,
        shape or None,
        real,
        compare=compare,
        provenance=f"{Path(path).name}: {layout}{untagged}",
    )


def _find(path: str, facts: Mapping[str, Any], feature: str) -> Found:
    nested = facts.get(NESTED.get(feature, ""))
    if isinstance(nested, Mapping):
        count = facts.get("num_images")
        inner = _find(path, nested, "")
        return inner._replace(n=inner.n or (None if count is None else int(count)), layout=f"EDM2's {NESTED[feature]}")
    for mean_key, covariance_key in MOMENTS_OF.get(feature, MOMENTS):
        if mean_key in facts and covariance_key in facts:
            mean, covariance = (np.asarray(facts[key], dtype=np.float64) for key in (mean_key, covariance_key))
            n = int(facts["n"]) if "n" in facts else -1
            return Found(mean, covariance, n if n > 0 else None, None, f"{mean_key} and {covariance_key}")
    for key in ACTIVATIONS if feature not in MOMENTS_OF else ():
        if key in facts:
            real = np.asarray(facts[key], dtype=np.float32)
            if real.ndim != 2:
                raise ValueError(f"{path}: {key} has shape {real.shape}, expected activations [n, dim]")
            mean, covariance = mean_and_covariance(update(empty(real.shape[1]), real))
            return Found(mean, covariance, len(real), real, f"activations {key}")
    wanted = [" and ".join(pair) for pair in MOMENTS_OF.get(feature, MOMENTS)]
    wanted += [] if feature in MOMENTS_OF else list(ACTIVATIONS)
    raise ValueError(f"{path}: expected {', or '.join(wanted)}; found {sorted(facts)}")


def reference_of(
    source: str | Path,
    features: Features,
    *,
    measured: Callable[[], Reference],
    numbers: Read,
    dim: int | None = None,
    compare: Compare = compare_sets,
) -> Reference:
    """What one extractor makes of real images, or of a file of moments.

    Of a file with images and moments, as ADM's, the moments are taken and the images' features beside them, unless the
    features are not Inception's, which its moments are of.

    Args:
        source: a file of moments, or images.
        features: the extractor.
        measured: () -> the same of images.
        numbers: reads what is in a pickle.
        dim: of the features, if it is known.
        compare: measures of features.

    Raises:
        FileNotFoundError: there are no such images.
        ValueError: the file cannot be read, or is of other features.
    """
    path = Path(source)
    if path.is_file():
        facts = numbers(path) if path.suffix == ".pkl" else read_npz(path)
        if "arr_0" not in facts or (features.name in (POOL, SPATIAL) and "mu" in facts):
            found = read_reference(path, features, dim=dim, read=lambda _: facts, compare=compare)
            return found._replace(real=features.extract(facts["arr_0"])) if "arr_0" in facts else found
    return measured()


def _check_tags(path: str, facts: Mapping[str, Any], features: Features) -> None:
    version = int(facts.get("format_version", FORMAT_VERSION))
    if version not in READABLE:
        raise ValueError(f"{path}: format_version is {version}; versions {READABLE} can be read")
    for key, expected in (
        ("feature", features.name),
        ("resize", features.resize),
        ("weights_sha256", features.weights),
    ):
        found = str(facts.get(key, expected))
        # An extractor whose weights are not known by a file is not contradicted by one.
        if found != expected and (key != "weights_sha256" or (found and expected)):
            raise ValueError(f"{path}: {key} is {found!r}, expected {expected!r}")


def _check_moments(
    path: str, mean: np.ndarray, covariance: np.ndarray, dim: int | None, facts: Mapping[str, Any]
) -> None:
    dim = mean.size if dim is None else dim
    if mean.shape != (dim,) or covariance.shape != (dim, dim):
        shapes = {key: np.shape(value) for key, value in facts.items() if np.ndim(value) in (1, 2)}
        raise ValueError(
            f"{path}: mean and covariance have shapes {mean.shape} and {covariance.shape}, "
            f"the features have dimension {dim}; the file holds {shapes}"
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
