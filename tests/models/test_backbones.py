"""What every network promises: derivatives in both modes, dropout by key, conditions that matter, float32 output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def test_forward_and_reverse_derivatives_agree_with_each_other_and_with_differences(case):
    inputs = (case.x, case.t, case.s)
    tangents = tuple(
        jax.random.normal(key, a.shape) for key, a in zip(jax.random.split(jax.random.key(1), 3), inputs, strict=True)
    )
    cotangent = jax.random.normal(jax.random.key(2), case.x.shape)

    @jax.jit
    def derivatives(x, t, s):
        partials = [
            jax.jvp(case, (x, t, s), tuple(d if i == j else jnp.zeros_like(d) for j, d in enumerate(tangents)))[1]
            for i in range(3)
        ]
        _, pull = jax.vjp(case, x, t, s)
        return partials, pull(cotangent)

    value = jax.jit(case)
    partials, pulled = derivatives(*inputs)
    h = 1e-2
    for i in range(3):
        assert jnp.abs(partials[i]).max() > 1e-3
        ahead, behind = (
            value(*(a + sign * h * d if i == j else a for j, (a, d) in enumerate(zip(inputs, tangents, strict=True))))
            for sign in (1, -1)
        )
        difference = (ahead - behind) / (2 * h)
        # Third derivatives times h^2, and rounding over h.
        np.testing.assert_allclose(partials[i], difference, atol=3e-3 * jnp.abs(difference).max())
        forward, reverse = jnp.vdot(cotangent, partials[i]), jnp.vdot(pulled[i], tangents[i])
        np.testing.assert_allclose(forward, reverse, rtol=1e-4, atol=1e-5)


def test_every_parameter_has_a_gradient(case):
    def loss(params):
        return jnp.sum(jnp.sin(case.module.apply(params, case.x, case.t, case.labels, case.s)))

    gradient = jax.jit(jax.grad(loss))(case.params)
    for path, g in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert jnp.all(jnp.isfinite(g)), name
        assert jnp.any(g != 0), name


def test_dropout_is_a_function_of_the_key(case):
    @jax.jit
    def train(key):
        return case(case.x, case.t, case.s, train=True, rngs={"dropout": key})

    one, same, other = train(jax.random.key(0)), train(jax.random.key(0)), train(jax.random.key(1))
    np.testing.assert_array_equal(one, same)
    assert jnp.abs(one - other).max() > 1e-3
    still = case(case.x, case.t, case.s)
    assert jnp.abs(one - still).max() > 1e-3


def test_each_condition_changes_its_own_example_alone(case):
    value = jax.jit(lambda t, s, labels: case(case.x, t, s, labels=labels))
    base = value(case.t, case.s, case.labels)
    for changed in (
        value(case.t.at[1].add(0.3), case.s, case.labels),
        value(case.t, case.s.at[1].add(0.3), case.labels),
        value(case.t, case.s, case.labels.at[1].set(1)),
    ):
        assert jnp.abs(changed[1] - base[1]).max() > 1e-3
        np.testing.assert_allclose(changed[::2], base[::2], atol=1e-5)


def test_new_values_do_not_compile_again(case):
    traces = []

    @jax.jit
    def value(x, t, labels, s):
        traces.append(1)
        return case(x, t, s, labels=labels)

    value(case.x, case.t, case.labels, case.s)
    value(2 * case.x, case.s, case.labels[::-1], case.t)
    assert len(traces) == 1


def test_half_precision_body_returns_float32_close_to_the_full_one(case):
    half = case._replace(module=case.module.clone(dtype=jnp.bfloat16))
    out, full = (jax.jit(c)(case.x, case.t, case.s) for c in (half, case))
    assert out.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(jax.eval_shape(lambda: half.params))} == {jnp.dtype("float32")}
    error = jnp.abs(out - full).max() / jnp.abs(full).max()
    assert 0 < error < 0.05


def test_half_precision_initialization_keeps_float32_parameters(case):
    half = case.module.clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.key(0), case.x, case.t, case.labels, case.s)
    assert {a.dtype for a in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_classes": 0}, "unconditional"),
        ({"second_time": False}, "second_time=False"),
        ({"labels": None}, "needs labels"),
        ({"s": None}, "needs s"),
    ],
)
def test_missing_and_superfluous_conditions_are_refused(case, change, message):
    conditions = {"labels": case.labels, "s": case.s}
    conditions |= {name: change.pop(name) for name in ("labels", "s") if name in (change := dict(change))}
    module = case.module.clone(**change)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: module.apply(case.params, case.x, case.t, conditions["labels"], conditions["s"]))
