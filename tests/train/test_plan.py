import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.tiny import experiment
from tests.tpu import environment, needs_libtpu
from train import plan_text, topology_devices
from train.chips import CHIPS, GIB, chip_of
from train.plan import NEEDED, Plan, largest_batch, plan, roofline
from train.program_cost import Cost, Traffic

ROOT = Path(__file__).parents[2]
V5E: Any = chip_of("TPU v5 lite")


def made_up(batch: int = 8, *, each: int = GIB, fixed: int = 2 * GIB, cost: Cost | None = None) -> Plan:
    """A plan of a step whose memory is a straight line in the batch."""
    needed, available = fixed + each * batch, int(V5E.memory)
    fits = needed <= available
    return Plan(
        devices=4, kind=V5E.kind, chip=V5E, mesh={"data": 4, "fsdp": 1, "tensor": 1}, batch=batch,
        memory={"parameters": fixed, "temporaries": each * batch}, host={}, needed=needed, available=available,
        donated=True, cost=(cost or Cost()) if fits else None, compile_seconds=1.0,
    )  # fmt: skip


def test_a_plan_of_the_devices_here_counts_the_parts_of_the_state():
    found: Any = plan(experiment())
    parameters = (16 * 16 + 16) * 4
    assert found.memory["parameters"] == parameters
    assert found.memory["optimizer"] == 2 * parameters + 4  # the count of Adam
    assert found.memory["averages"] == 4 * parameters
    assert found.memory["batch"] == 16 * 16 * 4
    assert found.needed == sum(found.memory.values())
    assert found.fits
    assert found.donated
    assert found.cost.product_flops >= 2 * 2 * 16 * 16 * 16  # one layer, forward and for its weights


def test_neither_data_nor_a_teacher_is_read_where_their_shapes_are_known():
    def read(*start):
        raise FileNotFoundError("not here")

    like = {"image": jax.ShapeDtypeStruct((16, 16), jnp.float32)}
    absent = experiment(batches=read, frozen=read)
    with pytest.raises(FileNotFoundError):
        plan(absent._replace(frozen_like=lambda: None))
    with pytest.raises(FileNotFoundError):
        plan(absent._replace(batch_like=like))
    known = absent._replace(batch_like=like, frozen_like=lambda: {"w": jax.ShapeDtypeStruct((3, 5), jnp.bfloat16)})
    assert plan(known).memory["frozen"] == 30


def test_the_longest_of_three_times_bounds_a_step():
    cost = Cost(
        flops=197e12, memory_bytes=2 * 819e9, bytes_accessed=3e12, collectives={"all-reduce": Traffic(1, 1e9, 100e9)}
    )
    of = made_up(cost=cost)
    assert roofline(of) == pytest.approx({"compute": 1.0, "memory": 2.0, "links": 0.5})
    text = plan_text.text(of)
    assert "at least 2000.00 ms, bound by memory: at most 16 examples a second" in text
    assert "10.00 GiB of 15.75 GiB: fits" in text
    assert json.loads(json.dumps(plan_text.as_json(of)))["least_seconds"]["memory"] == 2.0


def test_what_does_not_fit_says_so():
    assert "DOES NOT FIT" in plan_text.text(made_up(14))


@pytest.mark.parametrize("start", [1, 8, 13, 14, 60])
def test_the_search_ends_at_the_largest_batch_that_fits(start):
    tried = []
    fits = largest_batch(made_up, made_up(start), compiles=8, report=lambda p: tried.append(p.batch))
    assert fits == (13, 14)
    assert len(tried) <= 4


def test_where_the_compiler_refuses_nothing_the_memory_does():
    def of(batch):
        return made_up(batch)._replace(kind="NVIDIA H200", cost=Cost())

    assert of(13).fits
    assert not of(14).fits
    assert largest_batch(of, of(8), compiles=8, report=lambda p: None) == (13, 14)
    assert made_up(14)._replace(cost=Cost()).fits  # of a TPU the compiler knows better


def test_a_search_spends_no_more_compilations_than_it_may():
    tried = []
    fits, too_many = largest_batch(made_up, made_up(1), compiles=1, report=lambda p: tried.append(p.batch))
    assert (fits, too_many, tried) == (2, None, [2])


def test_nothing_fits_where_the_state_alone_is_too_large():
    def of(batch):
        return made_up(batch, fixed=20 * GIB)

    assert largest_batch(of, of(4), compiles=8, report=lambda p: None) == (0, 1)


@pytest.mark.parametrize(
    ("message", "needed", "available"),
    [
        ("the total memory required for HLO temporaries (600.00G) exceeds available HBM (15.75G).", "600.00", "15.75"),
        ("Ran out of memory in memory space hbm. Used 20.11G of 15.75G hbm. Exceeded hbm", "20.11", "15.75"),
    ],
)
def test_the_compilers_words_for_too_little_memory_are_understood(message, needed, available):
    found: Any = NEEDED.search(message)
    assert found.groups() == (needed, "G", available, "G")


# ---- Topologies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v5e", "topology is 'v5e', it must be a chip and a shape, such as v5e:2x4"),
        ("v5x:2x4", r"unknown chip 'v5x' in topology 'v5x:2x4'; known are v4, v5e, v5p, v6e, tpu7x; did you mean v5"),
    ],
)
def test_names_of_no_slice_are_refused_before_libtpu_is_asked(name, told):
    with pytest.raises(ValueError, match=told):
        topology_devices(name)


def test_without_libtpu_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr("train.topology.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"PYTHONPATH=.venv/libtpu.* pip install '.\[tpu\]'"):
        topology_devices("v5e:2x4")


def test_every_chip_has_positive_numbers_and_a_source():
    for chip in CHIPS:
        assert min(chip.memory, chip.flops, chip.bandwidth, chip.links) > 0
        assert chip.source


def run_main(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "main.py", "--config", "configs/imagenet256_mean_flow.py", "--mode=plan", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
    )
    return done.returncode, done.stdout


@pytest.mark.slow
@needs_libtpu
def test_a_slice_that_is_not_here_is_planned_for(tmp_path):
    small = ["--config.width=64", "--config.depth=2", "--config.heads=2", "--config.fsdp=2", "--config.batch_size=8"]
    code, output = run_main("--topology=v5e:2x2", "--compiles=0", f"--out={tmp_path / 'plan.json'}", *small)
    assert code == 0, output
    assert "4 x TPU v5 lite, data 2 x fsdp 2" in output
    assert "of 15.75 GiB: fits" in output
    found = json.loads((tmp_path / "plan.json").read_text())["plan"]
    assert found["donated"]
    assert found["cost"]["collectives"]["all-reduce"]["sent"] > 0
    assert found["least_seconds"]["memory"] > 0


@pytest.mark.slow
@needs_libtpu
def test_a_shape_that_is_no_slice_is_told_in_a_line():
    code, output = run_main("--topology=v5e:3x5")
    assert code == 1
    assert "the TPU compiler refuses topology 'v5e:3x5'" in output
    assert "Traceback" not in output


@needs_libtpu
def test_a_step_goes_over_its_parameters_once():
    """Of a linear network 13 times their size in a TPU's main memory.

    Read by the forward pass; the gradient written, and by the sum over devices read and written; by the optimizer with
    the average read are gradient, parameters, two moments and average, and the last four written.
    """
    program = """
from functools import partial
import optax
from tests.tiny import experiment
from train import averages, topology_devices
from train.plan import plan

average = {"constant": partial(averages.constant, decay=0.9)}
found = plan(experiment(dim=8192, optimizer=optax.adam(1e-2), averages=average), topology_devices("v5e:2x2"))
print(found.cost.memory_bytes / (4 * 8192**2))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(13, abs=0.1)
