"""Numbers do not depend on batches, devices and hosts; in processes that really have them."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eval.devices import gather_rows, host_share, local_mesh, over_devices, rows_per_host, sum_over_hosts
from eval.statistics import empty, update
from tests.children import on_devices
from tests.eval import judged

ROOT = Path(__file__).parents[2]


def start(out: Path, *options: str, devices: int) -> subprocess.Popen:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-m", "tests.eval.judged", str(out), *options]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def rows_of(out: Path, process: subprocess.Popen) -> list[dict]:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()
    return json.loads(out.read_text())


def check_alike(found: list[dict], expected: list[dict]) -> None:
    assert [row["metric"] for row in found] == [row["metric"] for row in expected]
    for a, b in zip(found, expected, strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-6), a["metric"]
        measured = ("value", "real_floor", "reference_sha256")  # the rounding of real features is in all three
        assert {k: v for k, v in a.items() if k not in measured} == {k: v for k, v in b.items() if k not in measured}


@pytest.fixture(scope="module")
def expected():
    return judged.rows(batch_size=32, spread_params=False)


def test_there_is_something_to_compare(expected):
    values = {row["metric"]: row["value"] for row in expected}
    measures = ("fd_first_90", "kid_first_90", "precision_first_90", "recall_first_90", "fd_second_90")
    assert list(values) == [*measures, "diversity_second_90", "constant_images_90"]
    assert all(abs(values[name]) > 1e-3 for name in (*measures, "diversity_second_90"))


@pytest.mark.parametrize("batch_size", [1, 7, 90])
def test_batches_do_not_matter(expected, batch_size):
    check_alike(judged.rows(batch_size=batch_size, spread_params=False), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "options"), [(32, ()), (11, ("--spread_params",))])
def test_eight_devices_do_not_matter(expected, tmp_path, batch_size, options):
    out = tmp_path / "rows.json"
    process = start(out, f"--batch_size={batch_size}", *options, devices=8)
    check_alike(rows_of(out, process), expected)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--spread_params",)])
def test_two_hosts_do_not_matter(expected, tmp_path, options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    outs = [tmp_path / f"{host}.json" for host in (0, 1)]
    processes = [
        start(out, "--batch_size=20", "--hosts=2", f"--host={host}", f"--port={port}", *options, devices=2)
        for host, out in enumerate(outs)
    ]
    both = [rows_of(out, process) for out, process in zip(outs, processes, strict=True)]
    check_alike(both[0], expected)
    assert both[0] == both[1]


def test_one_host_has_all_samples_and_rows():
    x = np.arange(6.0).reshape(3, 2)
    assert gather_rows(x) is x
    statistics = update(empty(2), x)
    assert sum_over_hosts(statistics) is statistics
    assert host_share(7) == range(7)
    with pytest.raises(ValueError, match="0 samples cannot be shared by 1 hosts"):
        host_share(0)


def test_batches_are_rounded_up_to_the_devices():
    mesh = local_mesh()
    assert mesh.size == 1
    assert [rows_per_host(size, mesh) for size in (1, 5, 8)] == [1, 5, 8]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, min(os.cpu_count() or 1, 8)),
        ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=5"}, 5),
    ],
)
def test_cores_are_devices_unless_a_number_was_chosen(chosen, expected):
    kept = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    code = "import jax; from eval.devices import cores_as_devices; cores_as_devices(); print(jax.device_count())"
    environment = kept | {"JAX_PLATFORMS": "cpu"} | chosen
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert int(found.stdout) == expected


def test_rows_that_the_devices_do_not_divide_are_filled_up():
    x, weight = np.arange(30.0, dtype=np.float32).reshape(10, 3), np.float32(2)
    doubled, total = over_devices(lambda weight, x, i: (weight * x, x.sum(1) + i), weight)(x, np.arange(10))
    np.testing.assert_array_equal(doubled, 2 * x)
    np.testing.assert_array_equal(total, x.sum(1) + np.arange(10))


ON_DEVICES = """
import jax, numpy as np
from eval.devices import over_devices

seen = []

def f(params, x):
    seen.append(x.shape[0])
    jax.debug.inspect_array_sharding(x, callback=lambda sharding: seen.append(len(sharding.device_set)))
    return params * x

x = np.arange(30.0, dtype=np.float32).reshape(10, 3)
np.testing.assert_array_equal(over_devices(f, np.float32(2))(x), 2 * x)
assert seen == [16, 8], seen
"""


@pytest.mark.slow
def test_rows_lie_on_all_devices():
    on_devices(8, "-c", ON_DEVICES)
