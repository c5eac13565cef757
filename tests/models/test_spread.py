"""With parameters shared out over devices, what is sent around is the parameters and not the activations."""

import json

import pytest

from tests.children import on_devices


@pytest.fixture(scope="module")
def multiples():
    return json.loads(on_devices(8, "-m", "tests.models.spread_over"))


@pytest.mark.slow
@pytest.mark.parametrize("network", ["dit", "uvit"])
def test_devices_send_parameters_and_their_gradients_alone(multiples, network):
    """Gathered forwards and backwards, and gradients summed: a few times the parameters, whatever the batch."""
    assert multiples[network] < 4.5
