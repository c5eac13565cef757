"""Samples drawn and judged in a process of its own, which tests give other devices, batches and hosts.

python -m tests.eval.judged OUT.json [--batch_size=32] [--hosts=1 --host=0 --port=PORT]
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from eval.draw import draw
from eval.features import network_features
from eval.judge import judge
from eval.real import make_reference, measure_stream
from eval.scores import diversity_score

N, CLASSES, DIM = 90, 3, 16


class Sampler(NamedTuple):
    """A sampler of noise around a grey level of its class."""

    name: str = "noise"
    nfe: int = 1
    sample: Any = lambda params, keys, labels: (
        params["scale"] * jax.vmap(lambda key: jax.random.normal(key, (4, 4, 1)))(keys)
        + 0.2 * labels[:, None, None, None]
    )


def network(params: dict[str, jax.Array], images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two layers of a toy; padding gives NaN, which must not matter."""
    x = images.reshape(len(images), -1).astype(jnp.float32) / 255
    hidden = jnp.tanh(jnp.matmul(x, params["first"], precision="highest"))
    # An image of zeros is what a batch is padded with, and no sample.
    hidden = jnp.where(x.sum(axis=1, keepdims=True) == 0, jnp.nan, hidden)
    return hidden, jnp.matmul(hidden, params["second"], precision="highest")


def rows(batch_size: int, *, spread_params: bool) -> list[dict[str, Any]]:
    """The rows of N samples, the network's first layer with all measures and its second with its moments alone."""
    random = np.random.RandomState(0)
    params = {
        "first": random.normal(size=(16, DIM)).astype(np.float32),
        "second": random.normal(size=(DIM, DIM)).astype(np.float32),
    }
    real = random.randint(1, 256, (120, 4, 4, 1)).astype(np.uint8)
    first, second = network_features(("first", "second"), network, params, batch_size=batch_size)
    references = [
        make_reference("real", first, real),
        measure_stream("real", second, [real[:50], real[50:]]).reference,
    ]
    scale: Any = jnp.float32(0.5)
    if spread_params:
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        whole = NamedSharding(mesh, PartitionSpec())
        scale = jax.make_array_from_process_local_data(whole, np.float32(0.5))
    batches = draw(Sampler(), {"scale": scale}, n=N, seed=3, num_classes=CLASSES, batch_size=batch_size)
    return judge(batches, references=references, scores=[diversity_score(second)])


def main() -> None:
    """Judge, and write the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--host", type=int, default=0)
    parser.add_argument("--port", type=int)
    parser.add_argument("--spread_params", action="store_true")
    options = parser.parse_args()
    if options.hosts > 1:
        jax.distributed.initialize(f"127.0.0.1:{options.port}", options.hosts, options.host)
    found = rows(options.batch_size, spread_params=options.spread_params)
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
