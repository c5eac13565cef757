import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


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
