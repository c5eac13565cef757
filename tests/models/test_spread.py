"""With parameters shared out over devices, what is sent around is the parameters and not the activations."""

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def multiples():
    flags = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.spread_over"], env=flags, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["dit", "uvit"])
def test_devices_send_parameters_and_their_gradients_alone(multiples, network):
    """Gathered forwards and backwards, and gradients summed: a few times the parameters, whatever the batch."""
    assert multiples[network] < 4.5
