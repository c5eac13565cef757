"""How judging meets networks and data: features of published networks, data sets by name, evaluation while training.

Not a run. `eval.fid`, `eval.reference` and `eval.sweep` load this file for what they are asked for by name.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import data
import eval as evaluation
from configs.feature_networks import NETWORKS, Network, weights_sha256
from eval.names import LOGITS, LPIPS
from losses import lpips
from models import vgg
from models.pretrained import read
from models.pretrained.lpips import lpips_sha256, read_lpips

# ---- Features of published networks ----------------------------------------------------------------------------------


def features(
    names: Sequence[str],
    *,
    weights: str | Path | None = None,
    resize: str | None = None,
    batch_size: int = 250,
    networks: Sequence[Network] = NETWORKS,
) -> tuple[tuple[evaluation.Features, ...], tuple[evaluation.Score, ...]]:
    """Features of one network, and the scores of those that are measured without real images.

    Args:
        names: of the features.
        weights: file of the parameters, or its published name; fetched or found by `evaluation.find_weights` if None.
        resize: how images come to the network's size; the network's usual way if None.
        batch_size: images in a call.
        networks: that there are.

    Raises:
        ValueError: no network gives these features, or resizes so; says which there are.
        FileNotFoundError: the weights are not there.
    """
    if list(names) == [LPIPS]:
        return (), (lpips_diversity(weights),)
    check_features(names, networks=networks)
    found = [network for network in networks if set(names) <= set(network.outputs)]
    if not found:
        raise ValueError(f"{' and '.join(names)} are not of one network; measure them in several calls")
    network = found[0]
    resize = next(iter(network.resizes)) if resize is None else resize
    if resize not in network.resizes:
        raise ValueError(f"{names[0]} has no resize {resize!r}; it has {', '.join(network.resizes)}")
    prepare = network.resizes[resize]
    path = evaluation.find_weights(network.weights, weights)
    apply, params = network.load(path)

    def chosen(params: Any, images: jax.Array) -> tuple[jax.Array, ...]:
        outputs = apply(params, prepare.device(images))
        return tuple(network.outputs[name](outputs) for name in names)

    made = evaluation.network_features(
        names,
        chosen,
        params,
        batch_size=batch_size,
        resize=resize,
        weights=weights_sha256(path),
        prepare=prepare.host,
    )
    alone = tuple(score for each in made if each.name == LOGITS for score in evaluation.inception_scores(each))
    return tuple(each for each in made if each.name != LOGITS), alone


def check_features(names: Sequence[str], *, networks: Sequence[Network] = NETWORKS) -> None:
    """Refuse names of features that there are not, with the closest one that there is.

    Raises:
        ValueError: there are no such features.
    """
    there = ["pixels", LPIPS, *(name for network in networks for name in network.outputs)]
    for name in names:
        if name not in there:
            closest = "".join(f"; did you mean {match}?" for match in difflib.get_close_matches(name, there, 1))
            raise ValueError(f"there are no features {name!r}; there are {', '.join(there)}{closest}")


def lpips_diversity(weights: str | Path | None, *, batch_size: int = 50) -> evaluation.Score:
    """Mean LPIPS of two samples of one class, as Zhang et al. define it: maximum pools, images as large as they are.

    Raises:
        FileNotFoundError: the weights are not there, or not given and cannot be fetched.
        ValueError: the files have others.
    """
    if weights is None:
        published = (evaluation.weights.VGG16, evaluation.weights.LPIPS_VGG16)
        weights = {evaluation.find_weights(file).parent for file in published}.pop()
    trunk, layers = read_lpips(weights)

    @jax.jit
    def distances(trunk: vgg.VGG, a: jax.Array, b: jax.Array) -> jax.Array:
        features = vgg.lpips_features(trunk, precision=jax.lax.Precision.HIGHEST)
        return lpips(a / 127.5 - 1, b / 127.5 - 1, features=features, weights=layers)

    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        parts = []
        for start in range(0, len(a), batch_size):  # one compiled shape, the last one filled with zeros
            part = [each[start : start + batch_size].astype(np.float32) for each in (a, b)]
            filled = [np.pad(each, [(0, batch_size - len(each)), (0, 0), (0, 0), (0, 0)]) for each in part]
            parts.append(np.asarray(distances(trunk, *filled))[: len(part[0])])
        return np.concatenate(parts)

    pictures = evaluation.Features(LPIPS, lambda images: images, weights=lpips_sha256(weights))
    return evaluation.diversity_score(pictures, distance=distance)


def numbers(path: Path) -> Mapping[str, Any]:
    """The numbers in a pickle, as those that EDM2 keeps its references in; nothing in it is executed.

    Raises:
        ValueError: it is no pickle, holds more than numbers by name, or names what is not on the list.
    """
    found = read(path)
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: expected numbers by their names, found {type(found).__name__}")
    return found


# ---- Images by name --------------------------------------------------------------------------------------------------


def images(
    name: str, *, split: str = "train", size: int | None = None, data_dir: str | None = None, batch_size: int = 250
) -> tuple[str, Iterator[np.ndarray]]:
    """Real images in their order, in batches: scikit-learn's digits, a folder, or a TensorFlow data set by its name.

    Raises:
        FileNotFoundError: there is no such folder, and no such data set that is prepared.
    """
    name, batches = examples(name, split=split, size=size, data_dir=data_dir, batch_size=batch_size)
    return name, (image for image, _ in batches)


def examples(
    name: str, *, split: str = "train", size: int | None = None, data_dir: str | None = None, batch_size: int = 250
) -> tuple[str, Iterator[tuple[np.ndarray, np.ndarray | None]]]:
    """The same with their labels, where they have any."""
    source = _source(name, split, size, data_dir)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for start in range(0, len(source), batch_size):
            found = [source[index] for index in range(start, min(start + batch_size, len(source)))]
            labels = np.asarray([each["label"] for each in found], np.int32) if source.num_classes else None
            yield np.stack([each["image"] for each in found]), labels

    return source.name, batches()


def _source(name: str, split: str, size: int | None, data_dir: str | None) -> data.Source:
    if Path(name).is_dir():
        return data.folder(name, size=size)
    if name == "digits":
        return data.digits(split)
    if not name.replace("_", "").replace(":", "").replace(".", "").isalnum() or name.endswith(".npz"):
        raise FileNotFoundError(f"{name}: no such npz file or folder of images")
    try:
        return data.tfds_source(name, split=split, data_dir=data_dir, size=size)
    except (FileNotFoundError, ValueError) as error:
        ours = "; did you mean digits?" if difflib.get_close_matches(name, ["digits"], cutoff=0.8) else ""
        raise FileNotFoundError(
            f"{name}: no such npz file or folder of images, and no data set: {error}{ours}"
        ) from error
