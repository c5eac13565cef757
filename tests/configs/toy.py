"""A network whose features are a few sums of pixels, in the place of Inception."""

import jax.numpy as jnp
import numpy as np

import eval as evaluation
from configs.feature_networks import Network, Prepare
from eval.names import LOGITS, POOL, SPATIAL


def halved(x):
    return x.astype(jnp.float32)[:, ::2, ::2] / 255


TOY = Network(
    outputs={POOL: lambda out: out[0], SPATIAL: lambda out: out[0][:, :2], LOGITS: lambda out: out[1]},
    resizes={
        "tf1": Prepare(halved),
        "clean": Prepare(lambda x: x / 255, host=lambda x: x[:, 1::2, 1::2].astype(np.float32)),
    },
    weights=evaluation.WeightFile("toy.npy", "https://example.org/toy.npy", "", "a toy"),
    load=lambda path: (lambda params, x: (x.reshape(len(x), -1) @ params, x.reshape(len(x), -1)), np.load(path)),
)
