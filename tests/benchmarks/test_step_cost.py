"""Operations of a step, counted by the compiler; nothing is timed here."""

import jax
import numpy as np
import pytest

from benchmarks.step_cost import Cost, cost, programs, rows_of, table
from benchmarks.step_recipes import BASELINE, RECIPES
from models import DiT
from train.chips import chip_of

ASKED = (BASELINE, "MeanFlow, s < t in all", "MeanFlow, s < t in 1/4", "Shortcut, 1/8", "Consistency-FM")
ADJOINT = "Adjoint Matching, 20 of 40"
WIDTH, TOKENS, BATCH, DEPTH = 64, 64, 8, 2


@pytest.fixture(scope="module")
def costs():
    model = DiT(2, WIDTH, DEPTH, 2, num_classes=10, second_time=True)
    chosen = {name: RECIPES[name] for name in (*ASKED, ADJOINT)}
    return {name: cost(p) for name, p in programs(chosen, model, shape=(16, 16, 4), batch=BATCH).items()}


def test_the_baseline_is_three_times_a_forward_pass(costs):
    """Of the products in the blocks: 2 (12 width^2 + 2 tokens width) a token forwards, and twice that backwards."""
    forward = DEPTH * BATCH * TOKENS * 2 * (12 * WIDTH**2 + 2 * TOKENS * WIDTH)
    assert 1.0 < costs[BASELINE].operations / (3 * forward) < 1.25


def test_the_derivative_costs_a_third_of_a_step_and_where_s_is_t_nothing(costs):
    everywhere, quarter = (costs[name].operations / costs[BASELINE].operations for name in ASKED[1:3])
    assert 1.25 < everywhere <= 1.4
    assert 1.05 < quarter < 1.13
    assert abs((quarter - 1) / (everywhere - 1) - 0.25) < 0.05


def test_calls_without_a_gradient_cost_a_third_of_a_step_each(costs):
    """Two of them on an eighth of the rows, and one on all."""
    eighth, one = (costs[name].operations / costs[BASELINE].operations for name in ASKED[3:])
    np.testing.assert_allclose([eighth, one], [1 + 2 / 3 / 8, 1 + 1 / 3], atol=0.03)


def test_adjoint_matching_calls_the_network_two_hundred_times(costs):
    """40 calls along the trajectory, 40 with a derivative in x on the way back; 20 with a gradient, and a base."""
    calls = 40 + 2 * 40 + (3 + 1) * 20
    np.testing.assert_allclose(costs[ADJOINT].operations / costs[BASELINE].operations, calls / 3, rtol=0.03)


@pytest.mark.slow
def test_the_other_recipes_can_be_counted():
    """Traced, not compiled."""
    model = DiT(2, 16, 1, 2, num_classes=10, second_time=True)
    others = {name: recipe for name, recipe in RECIPES.items() if name not in ASKED}
    traced = programs(others, model, shape=(4, 4, 4), batch=BATCH)
    for program in traced.values():
        loss, gradient = jax.eval_shape(program.step, *program.inputs)
        assert loss.shape == ()
        shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (gradient, program.inputs[0])]
        assert shapes[0] == shapes[1]


def test_rows_are_multiples_of_the_baseline():
    rows = rows_of({BASELINE: Cost(2.0, 4.0, 8.0), "other": Cost(3.0, 4.0, 4.0)}, {})
    assert [row["operations_ratio"] for row in rows] == [1.0, 1.5]
    assert rows[1]["temporary_bytes_ratio"] == 0.5
    assert rows[1]["seconds"] is rows[1]["seconds_ratio"] is None
    assert table(rows, "title").row_count == 2


def test_operations_and_time_give_the_share_of_a_known_chip():
    chip = chip_of("NVIDIA H200")
    assert chip is not None
    (row,) = rows_of({BASELINE: Cost(chip.flops, 4.0, 8.0)}, {BASELINE: 2.0}, chip)
    assert row["mfu"] == 0.5
