"""Images a second through a feature network, seconds of a Fréchet distance of 10,000 samples, memory.

    python -m benchmarks.eval_rate --features inception --weights FILE --side 32 --batch_size 50 --out rate.json
    python -m benchmarks.eval_rate --random

Times do not depend on the weights, so Inception's may be random. pytorch-fid's network, resize included, is
timed beside on the same images with the same file, where it can be imported: a batch of ours, a batch of theirs, and so
on, so that what else the machine does slows both. `make test-peers` makes an environment with both, `.peers`.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from rich.table import Table

from configs.judging import features as features_by_name
from eval import Features, Statistics, frechet_distance, mean_and_covariance, pixels
from eval.devices import cores_as_devices
from eval.names import POOL, SPATIAL
from eval.real import add
from models.inception import SIDE, InceptionV3
from models.pretrained.contents import tensors_in
from models.pretrained.inception import names
from models.pretrained.tensors import places, variables_of

from .showing import console, keep

JUDGED = 10_000
INCEPTION = (POOL, SPATIAL)  # what pytorch-fid is timed beside


@dataclass(frozen=True)
class Row:
    """One measurement; None where it was not made.

    Attributes:
        what: the network or the program.
        images_per_second: after the first call; the median batch's.
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


def measure(features: Features, images: np.ndarray, weights: Path | None, *, batch_size: int) -> list[Row]:
    """Stream images through an extractor as a judge does, and through pytorch-fid's network, in turns.

    The distance is of what was seen to itself.
    """
    statistics: Statistics | None = None

    def ours(part: np.ndarray) -> None:
        nonlocal statistics
        statistics = add(statistics, features, part)

    compile_seconds = timed(lambda: add(None, features, images[:batch_size].copy()))
    before = host_memory()
    theirs = pytorch_fid(weights) if features.name in INCEPTION else None
    if theirs is not None:
        theirs(images[:batch_size])
    seconds: list[tuple[float, ...]] = []
    cpu_seconds: list[tuple[float, ...]] = []
    for first in range(0, len(images) - batch_size + 1, batch_size):
        part = images[first : first + batch_size]
        spent = [clocked(partial(network, part)) for network in (ours, theirs) if network is not None]
        seconds.append(tuple(of_wall for of_wall, _ in spent))
        cpu_seconds.append(tuple(of_cpu for _, of_cpu in spent))
    assert statistics is not None
    moments = mean_and_covariance(statistics)
    distance = timed(lambda: frechet_distance(*moments, *moments))
    rates = [batch_size / median(column) for column in zip(*seconds, strict=True)]
    own = Row(
        what=f"{features.name}, {features.resize}",
        images_per_second=rates[0],
        compile_seconds=compile_seconds,
        distance_seconds=distance,
        seconds_per_10k=JUDGED / rates[0] + distance,
        device_mebibytes=device_memory(),
        host_mebibytes=before,
    )
    if theirs is None:
        return [own, Row("pytorch-fid: not here")]
    told = f"{ratio(seconds):.2f} by the clock, {ratio(cpu_seconds):.2f} by the processor's time"
    print(f"our rate over pytorch-fid's, median of {len(seconds)} pairs of batches: {told}")
    return [own, Row("pytorch-fid", images_per_second=rates[1])]


def ratio(seconds: list[tuple[float, ...]]) -> float:
    """Median over turns of how many times as fast the first of two was."""
    return median(theirs / ours for ours, theirs in seconds)


def pytorch_fid(weights: Path | None) -> Callable[[np.ndarray], object] | None:
    """pytorch-fid's network, with the same weights if they are given; None where it is not installed."""
    if find_spec("torch") is None or find_spec("pytorch_fid") is None:
        return None
    torch: Any = import_module("torch")
    # The wheel of torchvision beside a PyTorch without CUDA has operators that no library registers until this does.
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    peer: Any = import_module("pytorch_fid.inception")
    peer.operators = operators  # which are gone with it
    if weights is not None:
        tensors = {name: torch.tensor(array) for name, array in tensors_in(weights).items()}
        peer.load_state_dict_from_url = lambda *_, **__: tensors
    network = peer.InceptionV3([peer.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()

    def run(images: np.ndarray) -> object:
        x = np.ascontiguousarray(np.moveaxis(np.broadcast_to(images, (*images.shape[:3], 3)), -1, 1))
        with torch.no_grad():
            return network(torch.from_numpy(x).float() / 255)[0].numpy()

    return run


def random_weights(path: Path) -> Path:
    """A file of random weights of Inception under the names of pytorch-fid's."""
    rng, tensors = np.random.default_rng(0), {}
    for place, shape in places(variables_of(InceptionV3(), (1, SIDE, SIDE, 3))).items():
        draws = rng.standard_normal(shape, np.float32)
        if place[-1] == "kernel":
            draws = np.moveaxis(draws * np.float32(np.sqrt(2 / np.prod(shape[:-1]))), (-1, -2), (0, 1))
        elif place[-1] in ("scale", "var"):
            draws = np.exp(np.float32(0.2) * draws)
        tensors[names(place)[0]] = np.ascontiguousarray(draws)
    import_module("safetensors.numpy").save_file(tensors, path)
    return path


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def clocked(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that it takes, by the clock and of the processors; on a CPU the second says little of other work."""
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu_start


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
    parser.add_argument("--random", action="store_true", help="random weights of Inception in place of a file")
    parser.add_argument("--resize", help="how images come to the network's size")
    parser.add_argument("--images", type=int, default=500, help="that are measured")
    parser.add_argument("--side", type=int, default=32, help="of the images, which are noise")
    parser.add_argument("--batch_size", type=int, default=50)
    parser.add_argument("--out", type=Path, help="write the table here as JSON")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        if options.random:
            options.weights = random_weights(Path(folder) / "random.safetensors")
        rows = measured(options)
    console().print(table(rows))
    keep(options, rows=[asdict(row) for row in rows])


def measured(options: argparse.Namespace) -> list[Row]:
    """The rows of these options."""
    shape = (options.images, options.side, options.side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if options.features == pixels.name:
        chosen = pixels
    else:
        (chosen,), _ = features_by_name(
            [options.features], weights=options.weights, resize=options.resize, batch_size=options.batch_size
        )
    return measure(chosen, images, options.weights, batch_size=options.batch_size)


if __name__ == "__main__":
    cores_as_devices()
    main()
