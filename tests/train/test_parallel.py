import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.tiny import experiment
from train import fit


@pytest.mark.slow
def test_where_averages_are_kept_changes_no_bit_of_a_resumed_run(tmp_path):
    states = {}
    for on_host in (False, True):
        workdir = tmp_path / str(on_host)
        workdir.mkdir()
        fit(experiment(steps=8, averages_on_host=on_host), workdir)
        states[on_host] = fit(experiment(steps=12, averages_on_host=on_host), workdir).state
    kinds = [leaf.sharding.memory_kind for leaf in jax.tree.leaves(states[True].averages)]
    assert set(kinds) == {"pinned_host"}
    for a, b in zip(*map(jax.tree.leaves, states.values()), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_eight_devices_that_share_a_transformer_in_every_way_agree_with_one():
    """Data, fsdp and tensor axes, micro-batches, averages on the host."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sharded_steps"],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["moved"] > 0.01
    assert facts["difference"] < 1e-6
    for part, memory in (("params", "device"), ("momentum", "device"), ("average", "pinned_host")):
        assert facts[f"{part} mlp0"] == ["P(None, 'fsdp', 'tensor')", memory]
        assert facts[f"{part} mlp1"] == ["P(None, 'tensor', 'fsdp')", memory]
