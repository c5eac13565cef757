import json

import jax
import numpy as np
import pytest

from tests.children import on_devices
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
    facts = json.loads(on_devices(8, "-m", "tests.sharded_steps"))
    assert facts["moved"] > 0.01
    assert facts["difference"] < 1e-6
    for part, memory in (("params", "device"), ("momentum", "device"), ("average", "pinned_host")):
        assert facts[f"{part} mlp0"] == ["P(None, 'fsdp', 'tensor')", memory]
        assert facts[f"{part} mlp1"] == ["P(None, 'tensor', 'fsdp')", memory]
