"""What every network promises: derivatives in both modes, dropout by key, conditions that matter, float32 output."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def test_derivatives(case, quick_jit):
    inputs = (case.x, case.t, case.s)
    tangents = tuple(
        jax.random.normal(key, a.shape) for key, a in zip(jax.random.split(jax.random.key(1), 3), inputs, strict=True)
    )
    cotangent = jax.random.normal(jax.random.key(2), case.x.shape)

    def value(params, x, t, s):
        return case.module.apply(params, x, t, case.labels, s)

    @quick_jit
    def push(*directions):
        return jax.jvp(partial(value, case.params), inputs, directions)[1]

    @quick_jit
    def pull(params):
        return jax.vjp(value, params, *inputs)[1](cotangent)

    gradient, *pulled = pull(case.params)
    size = jnp.abs(case.value(case.params, case.x, case.t, case.labels, case.s)).max()
    h = 1e-2
    for i in range(3):
        directions = tuple(d if i == j else jnp.zeros_like(d) for j, d in enumerate(tangents))
        tangent = push(*directions)
        assert jnp.abs(tangent).max() > 1e-3 * size

        # Forward against reverse mode: they are transposes.
        forward, reverse = jnp.vdot(cotangent, tangent), jnp.vdot(pulled[i], tangents[i])
        scale = float(jnp.linalg.norm(cotangent) * jnp.linalg.norm(tangent))
        np.testing.assert_allclose(forward, reverse, atol=1e-5 * scale)

        # Forward mode against central differences: third derivatives times h^2, and rounding over h.
        def moved(step, directions=directions):
            x, t, s = (a + step * d for a, d in zip(inputs, directions, strict=True))
            return case.value(case.params, x, t, case.labels, s)

        difference = (moved(h) - moved(-h)) / (2 * h)
        np.testing.assert_allclose(tangent, difference, atol=2e-3 * float(jnp.abs(tangent).max()))

    for path, g in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert jnp.all(jnp.isfinite(g)), name
        assert jnp.any(g != 0), name


def test_dropout_is_a_function_of_the_key(case, quick_jit):
    @quick_jit
    def train(key):
        rngs = {"dropout": key}
        return case.module.apply(case.params, case.x, case.t, case.labels, case.s, train=True, rngs=rngs)

    one, same, other = train(jax.random.key(0)), train(jax.random.key(0)), train(jax.random.key(1))
    still = case.value(case.params, case.x, case.t, case.labels, case.s)
    np.testing.assert_array_equal(one, same)
    assert jnp.abs(one - other).max() > 1e-3
    assert jnp.abs(one - still).max() > 1e-3


def test_each_condition_changes_its_own_example_alone(case):
    value = partial(case.value, case.params, case.x)
    base = value(case.t, case.labels, case.s)
    for changed in (
        value(case.t.at[1].add(0.3), case.labels, case.s),
        value(case.t, case.labels.at[1].set(1), case.s),
        value(case.t, case.labels, case.s.at[1].add(0.3)),
    ):
        assert jnp.abs(changed[1] - base[1]).max() > 1e-3 * jnp.abs(base[1]).max()
        np.testing.assert_array_equal(changed[::2], base[::2])


def test_new_values_do_not_compile_again(case):
    case.value(case.params, case.x, case.t, case.labels, case.s)
    case.value(case.params, 2 * case.x, case.s, case.labels[::-1], case.t)
    assert case.value._cache_size() == 1


def test_half_precision_body(case, quick_jit):
    half = case.module.clone(dtype=jnp.bfloat16)
    inputs = case.x, case.t, case.labels, case.s
    params = jax.eval_shape(half.init, jax.random.key(0), *inputs)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float32")}

    out, full = quick_jit(half.apply)(case.params, *inputs), case.value(case.params, *inputs)
    assert out.dtype == jnp.float32
    error = jnp.linalg.norm(out - full) / jnp.linalg.norm(full)
    assert 1e-5 < error < 0.02


@pytest.mark.parametrize(
    ("settings", "missing", "message"),
    [
        ({"num_classes": 0}, "", "unconditional"),
        ({"second_time": False}, "", "second_time=False"),
        ({}, "labels", "needs labels"),
        ({}, "s", "needs s"),
    ],
)
def test_missing_and_superfluous_conditions_are_refused(case, settings, missing, message):
    module = case.module.clone(**settings)
    conditions = {"labels": case.labels, "s": case.s} | ({missing: None} if missing else {})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(module.apply, **conditions), case.params, case.x, case.t)
