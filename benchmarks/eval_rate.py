"""Images a second through a feature network, seconds of a Fréchet distance of 10,000 samples, memory.

    python -m benchmarks.eval_rate --features inception --weights FILE --side 32 --batch_size 50 --out rate.json

Any file of weights will do, random ones too: times do not depend on them. pytorch-fid's network is timed beside on the
same images with the same file, where it can be imported.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from configs.judging import features as features_by_name
from eval import Features, Statistics, frechet_distance, mean_and_covariance, pixels
from eval.real import add

JUDGED = 10_000


@dataclass(frozen=True)
class Row:
    """One measurement; None where it was not made.

    Attributes:
        what: the network or the program.
        images_per_second: after the first call.
        compile_seconds: of the first call.
        distance_seconds: of a Fréchet distance of its features, on the host.
        seconds_per_10k: 10,000 images and one distance.
        device_mebibytes: most that was in use on the first device, where it says so.
        host_mebibytes: most that this process has held.
    """

    what: str
    images_per_second: float | None = None
    compile_seconds: float | None = None
    distance_seconds: float | None = None
    seconds_per_10k: float | None = None
    device_mebibytes: float | None = None
    host_mebibytes: float | None = None


def measure(features: Features, images: np.ndarray, *, batch_size: int) -> Row:
    """Stream images through an extractor as a judge does; the distance is of what was seen to itself."""
    start = time.perf_counter()
    add(None, features, images[:batch_size].copy())
    compile_seconds = time.perf_counter() - start
    statistics: Statistics | None = None
    start = time.perf_counter()
    for first in range(0, len(images), batch_size):
        statistics = add(statistics, features, images[first : first + batch_size])
    seconds = time.perf_counter() - start
    assert statistics is not None
    moments = mean_and_covariance(statistics)
    distance = timed(lambda: frechet_distance(*moments, *moments))
    rate = len(images) / seconds
    return Row(
        what=f"{features.name}, {features.resize}",
        images_per_second=rate,
        compile_seconds=compile_seconds,
        distance_seconds=distance,
        seconds_per_10k=JUDGED / rate + distance,
        device_mebibytes=device_memory(),
        host_mebibytes=host_memory(),
    )


def pytorch_fid(images: np.ndarray, weights: Path | None, *, batch_size: int) -> Row:
    """pytorch-fid's network on the same images, with the same weights if they are given, where it is installed."""
    if find_spec("torch") is None or find_spec("pytorch_fid") is None:
        return Row("pytorch-fid: not here")
    torch: Any = import_module("torch")
    peer: Any = import_module("pytorch_fid.inception")
    if weights is not None:
        peer.load_state_dict_from_url = lambda *_, **__: torch.load(weights, weights_only=True)
    network = peer.InceptionV3([peer.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    x = torch.from_numpy(np.broadcast_to(images, (*images.shape[:3], 3)).copy()).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        network(x[:batch_size])
        seconds = timed(lambda: [network(part) for part in x.split(batch_size)])
    return Row("pytorch-fid", images_per_second=len(images) / seconds, host_mebibytes=host_memory())


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def device_memory() -> float | None:
    """Most MiB in use on the first device, where the backend counts them."""
    statistics = jax.local_devices()[0].memory_stats()
    return None if not statistics else statistics["peak_bytes_in_use"] / 2**20


def host_memory() -> float:
    """Most MiB that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def table(rows: list[Row]) -> Table:
    """The measurements."""
    result = Table(title=f"features on {jax.device_count()} {jax.devices()[0].device_kind}")
    columns = ("images/s", "compile s", "distance s", f"s per {JUDGED:,}", "device MiB", "host MiB")
    result.add_column("what")
    for column in columns:
        result.add_column(column, justify="right")
    for row in rows:
        what, *values = asdict(row).values()
        result.add_row(what, *("" if value is None else f"{value:,.1f}" for value in values))
    return result


def main() -> None:
    """Measures, prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--features", default="inception", help="by name, or pixels")
    parser.add_argument("--weights", type=Path, help="file of the network's weights")
    parser.add_argument("--resize", help="how images come to the network's size")
    parser.add_argument("--images", type=int, default=500, help="that are measured")
    parser.add_argument("--side", type=int, default=32, help="of the images, which are noise")
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--out", type=Path, help="write the table here as JSON")
    options = parser.parse_args()
    shape = (options.images, options.side, options.side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if options.features == pixels.name:
        chosen = pixels
    else:
        (chosen,), _ = features_by_name(
            [options.features], weights=options.weights, resize=options.resize, batch_size=options.batch_size
        )
    rows = [
        measure(chosen, images, batch_size=options.batch_size),
        pytorch_fid(images, options.weights, batch_size=options.batch_size),
    ]
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table(rows))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
