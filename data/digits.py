"""The 1,797 handwritten digits that come with scikit-learn: real data that need no download."""

from __future__ import annotations

from difflib import get_close_matches

import numpy as np

from .memory import ArraySource

# Every fifth example of each class is held out, so both splits hold the classes in equal shares.
_HELD_OUT_STRIDE = 5


def digits(split: str = "all") -> ArraySource:
    """Handwritten digits: 8x8 grey images of ten classes.

    Args:
        split: "all" (1,797 images), "train" (1,442) or "held_out" (355, every fifth example of each class).

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), its test part.
    """
    from sklearn.datasets import load_digits

    grey, label = load_digits(return_X_y=True)  # grey levels are the whole numbers 0 .. 16
    image = np.round(grey * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    held_out = np.zeros(len(label), bool)
    for value in range(10):
        held_out[np.flatnonzero(label == value)[_HELD_OUT_STRIDE - 1 :: _HELD_OUT_STRIDE]] = True
    splits = {"all": np.ones_like(held_out), "train": ~held_out, "held_out": held_out}
    if split not in splits:
        closest = get_close_matches(split, splits, 1, cutoff=0.5)
        raise ValueError(
            f"digits has no split {split!r}, only {', '.join(splits)}"
            + "".join(f"; did you mean {name!r}?" for name in closest)
        )
    chosen = splits[split]
    return ArraySource(f"digits/{split}", image[chosen], label[chosen].astype(np.int32), num_classes=10)
