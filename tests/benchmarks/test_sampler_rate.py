"""Rates of samplers, tiny."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from benchmarks.sampler_rate import CALL, measure, samplers, table
from models import DiT
from samplers import sample_keys

MODEL = DiT(2, 16, 1, 2, num_classes=10, second_time=True)


@pytest.mark.parametrize("name", samplers(MODEL))
def test_calls_are_counted_right(name):
    """By running the sampler and counting what reaches the network."""
    calls = []

    class Counting:
        num_classes = 10

        @staticmethod
        def apply(params, x, t, y, hop):
            jax.debug.callback(lambda: calls.append(1))
            return jnp.zeros_like(x)

    counting: Any = Counting()
    sampler = samplers(counting)[name]
    x = jnp.ones((2, 4, 4, 1))
    jax.block_until_ready(sampler.run({}, x, jnp.zeros(2, jnp.int32), sample_keys(0, jnp.arange(2))))
    jax.effects_barrier()
    assert len(calls) == sampler.calls


def test_a_row_for_each_with_the_share_of_the_network():
    chosen = {name: sampler for name, sampler in samplers(MODEL).items() if name in (CALL, "MeanFlow, 2")}
    rows = measure(chosen, MODEL, shape=(4, 4, 1), batch=2, rounds=1)
    assert [row["sampler"] for row in rows] == [CALL, "MeanFlow, 2"]
    assert rows[0]["network_share"] == 1
    assert rows[1]["network_share"] == pytest.approx(2 * rows[0]["seconds"] / rows[1]["seconds"])
    assert rows[1]["images_per_second"] == pytest.approx(2 / rows[1]["seconds"])
    assert table(rows, "title").row_count == 2
