"""Steps of each backbone: traced, and one of them compiled."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.backbone_cost import ASKED, Case, measure, programs, published, small, table
from models import DiT
from train.chips import chip_of


@pytest.mark.parametrize("name", small(jnp.float32))
def test_every_small_backbone_has_a_loss_and_a_gradient(name):
    for program in programs(small(jnp.float32)[name], batch=2).values():
        loss, gradient = jax.eval_shape(program.step, *program.inputs)
        assert loss.shape == ()
        shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in (gradient, program.inputs[0])]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("name", "millions"),
    [("DiT-B/2", 130.5), ("DDPM++", 55.7), ("NCSN++", 56.5), ("ADM", 295.9), ("EDM2-S", 280.2), ("UViT", 395.1)],
)
def test_the_published_ones_have_their_size(name, millions):
    model, shape = published(jnp.bfloat16)[name]
    x, t, y = jnp.zeros((1, *shape)), jnp.zeros(1), jnp.zeros(1, jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), x, t, y)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_row_for_each_recipe_against_flow_matching_with_the_same_backbone():
    case = Case(DiT(2, 16, 1, 2, num_classes=10), (4, 4, 1))
    chip = chip_of("NVIDIA H200")
    assert chip is not None
    rows = measure({"tiny": case}, batch=4, rounds=1, chip=chip)
    assert [row["recipe"] for row in rows] == list(ASKED)
    assert rows[0]["operations_ratio"] == rows[0]["seconds_ratio"] == 1
    assert 1.2 < rows[1]["operations_ratio"] < 1.5
    assert rows[0]["mfu"] == pytest.approx(rows[0]["operations"] / rows[0]["seconds"] / chip.flops)
    assert table(rows, "title").row_count == 3


def test_without_rounds_nothing_is_timed():
    rows = measure({"tiny": Case(DiT(2, 16, 1, 2, num_classes=10), (4, 4, 1))}, batch=4, rounds=0)
    assert rows[0]["seconds"] is rows[0]["mfu"] is None
    assert table(rows, "title").row_count == 3
