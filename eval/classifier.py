"""The independent judge of class-conditional samples: a small classifier trained on real images."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Int, Integer, Num, PRNGKeyArray, UInt8

from .features import Extract, in_batches

FEATURE_DIM = 128
BATCH = 500


class Network(nn.Module):
    """Convolutions of stride 2 down to at most 4 pixels, then one hidden layer; any image size.

    Maps images [B, H, W, C] of grey levels 0 to 255, whole or not, to logits [B, num_classes] and the hidden layer
    [B, FEATURE_DIM], float32.
    """

    num_classes: int

    @nn.compact
    def __call__(  # noqa: D102
        self, images: Num[Array, "batch height width channels"]
    ) -> tuple[Float[Array, "batch classes"], Float[Array, "batch dim"]]:
        x = images.astype(jnp.float32) / 127.5 - 1.0
        width = 32
        x = nn.relu(nn.Conv(width, (3, 3))(x))
        while max(x.shape[1:3]) > 4:
            width = min(2 * width, 128)
            x = nn.relu(nn.Conv(width, (3, 3), strides=(2, 2))(x))
        features = nn.relu(nn.Dense(FEATURE_DIM)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes)(features), features


class Classifier(NamedTuple):
    """A trained classifier and how good it is on real images it has not seen.

    Attributes:
        name: identifies the weights: "classifier-" and eight digits of their hash.
        logits: uint8 images [B, H, W, C] to float32 [B, num_classes].
        features: uint8 images [B, H, W, C] to the float32 hidden layer [B, FEATURE_DIM].
        held_out_accuracy: share of the real held-out images classified rightly. An agreement of samples
            above it means nothing.
        n_train: number of real images it was trained on.
        n_held_out: number of real images behind `held_out_accuracy`.
        image_shape: (H, W, C) of the images it takes.
        num_classes: number of classes.
        params: weights of `Network(num_classes)`.
    """

    name: str
    logits: Extract
    features: Extract
    held_out_accuracy: float
    n_train: int
    n_held_out: int
    image_shape: tuple[int, ...]
    num_classes: int
    params: Any


def train_classifier(
    image: UInt8[np.ndarray, "n height width channels"],
    label: Integer[np.ndarray, " n"],
    held_out_image: UInt8[np.ndarray, "m height width channels"],
    held_out_label: Integer[np.ndarray, " m"],
    *,
    num_classes: int,
    seed: int = 0,
    steps: int = 600,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
) -> Classifier:
    """Train a small convolutional classifier; the same arguments give the same weights.

    AdamW with warm-up and cosine decay, label smoothing 0.1, weight decay 0.01. Training images move by up to
    a sixteenth of their side, edges repeated: not at all at 8 pixels, which a digit fills, by 2 at 32.

    Args:
        image: real training images.
        label: their classes, in [0, num_classes).
        held_out_image: real images it is scored on, and never trained on.
        held_out_label: their classes.
        num_classes: number of classes.
        seed: of the initial weights, the batches and the moves.
        steps: optimizer steps.
        batch_size: images drawn, with replacement, in a step.
        learning_rate: the largest of the schedule.

    Raises:
        ValueError: empty sets, or labels outside [0, num_classes).
    """
    _check_labels(label, num_classes, "label")
    _check_labels(held_out_label, num_classes, "held_out_label")
    network = Network(num_classes)
    reach = min(image.shape[1:3]) // 16
    init_key, train_key = jax.random.split(jax.random.key(seed))
    params = network.init(init_key, jnp.asarray(image[:1]))
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, max(1, steps // 10), max(2, steps))
    optimizer = optax.adamw(schedule, weight_decay=0.01)

    def loss(params: Any, images: Array, labels: Array) -> Array:
        logits, _ = network.apply(params, images)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, num_classes), 0.1)
        return optax.softmax_cross_entropy(logits, targets).mean()

    @jax.jit
    def train_step(params: Any, opt_state: Any, key: Array, images: Array, labels: Array) -> tuple[Any, Any]:
        row_key, shift_key = jax.random.split(key)
        rows = jax.random.randint(row_key, (batch_size,), 0, len(images))
        shifted = _random_shift(shift_key, images[rows], reach)
        gradient = jax.grad(loss)(params, shifted, labels[rows])
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    opt_state = optimizer.init(params)
    images, labels = jnp.asarray(image), jnp.asarray(label, dtype=jnp.int32)
    for i in range(steps):
        params, opt_state = train_step(params, opt_state, jax.random.fold_in(train_key, i), images, labels)

    classifier = _classifier(params, image.shape[1:], num_classes, n_train=len(image))
    accuracy = label_agreement(classifier, held_out_image, held_out_label)
    return classifier._replace(held_out_accuracy=accuracy, n_held_out=len(held_out_image))


def label_agreement(
    classifier: Classifier,
    images: UInt8[np.ndarray, "n height width channels"],
    labels: Integer[np.ndarray, " n"],
) -> float:
    """Share of images that the classifier puts in the class they were asked to be of.

    It does not see variety: one good image per class, repeated, agrees as well as real images do.

    Raises:
        ValueError: no images, images of another shape, or labels outside [0, num_classes).
    """
    if images.shape[1:] != classifier.image_shape:
        raise ValueError(f"images are {images.shape[1:]}, the classifier takes {classifier.image_shape}")
    _check_labels(labels, classifier.num_classes, "labels")
    return float((classifier.logits(images).argmax(axis=1) == labels).mean())


def log_probabilities(
    params: Any, x: Float[Array, "batch height width channels"], *, num_classes: int
) -> Float[Array, "batch classes"]:
    """Natural logarithms of the class probabilities of images in [-1, 1], differentiable in them; not quantised.

    `params` are a classifier's. A model that is trained on them must be judged by a classifier of another seed.
    """
    logits, _ = Network(num_classes).apply(params, (x + 1.0) * 127.5)
    return jax.nn.log_softmax(logits)


def save_classifier(directory: str | Path, classifier: Classifier) -> None:
    """Write `weights.npz` and `classifier.json`, so that a run need not train it again."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(directory / "weights.npz", **flatten_dict(jax.device_get(classifier.params), sep="/"))
    facts = {
        key: getattr(classifier, key)
        for key in ("name", "held_out_accuracy", "n_train", "n_held_out", "image_shape", "num_classes")
    }
    # Last, so that a directory with this file is whole.
    (directory / "classifier.json").write_text(json.dumps(facts, indent=2) + "\n")


def load_classifier(directory: str | Path) -> Classifier:
    """Read what `save_classifier` wrote.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the weights are not those that were scored.
    """
    directory = Path(directory)
    facts = json.loads((directory / "classifier.json").read_text())
    with np.load(directory / "weights.npz", allow_pickle=False) as file:
        params = unflatten_dict({key: jnp.asarray(file[key]) for key in file.files}, sep="/")
    classifier = _classifier(params, tuple(facts["image_shape"]), facts["num_classes"], facts["n_train"])
    if classifier.name != facts["name"]:
        raise ValueError(f"{directory}/weights.npz holds {classifier.name}, expected {facts['name']}")
    return classifier._replace(held_out_accuracy=facts["held_out_accuracy"], n_held_out=facts["n_held_out"])


def _classifier(params: Any, image_shape: tuple[int, ...], num_classes: int, n_train: int) -> Classifier:
    apply: Callable[[Any, Array], tuple[Array, Array]] = Network(num_classes).apply  # type: ignore[assignment]
    digest = hashlib.sha256()
    for key, value in sorted(flatten_dict(jax.device_get(params), sep="/").items()):
        digest.update(key.encode() + np.asarray(value).tobytes())
    return Classifier(
        name=f"classifier-{digest.hexdigest()[:8]}",
        logits=in_batches(lambda params, images: apply(params, images)[0], params, batch_size=BATCH),
        features=in_batches(lambda params, images: apply(params, images)[1], params, batch_size=BATCH),
        held_out_accuracy=float("nan"),
        n_train=n_train,
        n_held_out=0,
        image_shape=image_shape,
        num_classes=num_classes,
        params=params,
    )


def _random_shift(
    key: PRNGKeyArray, images: UInt8[Array, "batch height width channels"], reach: int
) -> UInt8[Array, "batch height width channels"]:
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    offsets: Int[Array, "batch 2"] = jax.random.randint(key, (len(images), 2), 0, 2 * reach + 1)
    return jax.vmap(lambda x, o: jax.lax.dynamic_slice(x, (o[0], o[1], 0), images.shape[1:]))(padded, offsets)


def _check_labels(labels: np.ndarray, num_classes: int, name: str) -> None:
    if len(labels) == 0:
        raise ValueError(f"{name} is empty")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"{name} spans [{labels.min()}, {labels.max()}], expected [0, {num_classes - 1}]")
