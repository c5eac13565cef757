from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.dit import patchify, unpatchify
from models.embeddings import sinusoidal
from models.in_context_dit import IN_CONTEXT_SIZES, InContextDiT, Tokens, rotate

X = jax.random.normal(jax.random.key(0), (3, 4, 6, 3))
H, OMEGA, LOW, HIGH = (jnp.asarray(a) for a in ([0.0, 0.3, 0.9], [1.0, 2.5, 8.0], [0.0, 0.1, 0.4], [1.0, 0.6, 0.9]))
LABELS = jnp.asarray([0, 3, 5])
MODULE = InContextDiT(
    patch=2, width=16, depth=3, heads=2, head_depth=1, num_classes=5, tokens=Tokens(label=3, omega=2, h=2)
)
INPUTS = (X, H, LABELS, OMEGA, LOW, HIGH)


@pytest.fixture(scope="module")
def params():
    """Normal draws: gates that start at zero would hide what is behind them."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(MODULE.init, jax.random.key(0), *INPUTS)["params"]
    return jax.tree.map(lambda a: jnp.asarray(0.3 * rng.standard_normal(a.shape), a.dtype), shapes)


@pytest.fixture(scope="module")
def value(params):
    return jax.jit(lambda *inputs: MODULE.apply({"params": params}, *inputs))


@pytest.mark.parametrize(("name", "millions"), [("B", 89), ("M", 174), ("L", 409), ("XL", 610)])
def test_parameter_counts(name, millions):
    """Without v's own blocks, as at sampling. The counts in millions are the paper's from memory."""
    size = IN_CONTEXT_SIZES[name]
    module = InContextDiT(patch=2, width=size.width, depth=size.depth, heads=size.heads, num_classes=1000)
    one = jnp.ones(1)
    shapes = jax.eval_shape(
        module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 4)), one, jnp.zeros(1, int), one, one, one
    )["params"]
    without_v = {key: leaf for key, leaf in shapes.items() if not key.endswith("_v")}
    count = sum(a.size for a in jax.tree.leaves(without_v))
    assert abs(count / 1e6 - millions) < 1.5
    w, features, hidden = size.width, size.width // size.heads, 8 * size.width // 3
    assert features == 64
    block = 4 * w * w + 3 * w * hidden + 4 * w + 2 * features  # 4 w: two norms and two gates
    outside = 4 * (256 * w + w * w) + 1001 * w + 20 * w + 16 * w + w + 16 * w
    assert count == size.depth * block + outside


def plain(params, x, h, labels, omega, low, high):
    """The network written out layer by layer."""

    def norm(p, a):
        return a / jnp.sqrt((a**2).mean(-1, keepdims=True) + 1e-6) * p["scale"]

    def embed(p, a):
        return jax.nn.silu(sinusoidal(a, 256) @ p["linear0"]["kernel"]) @ p["linear1"]["kernel"]

    def run(blocks, a):
        for i in range(len(blocks["gate0"])):
            p = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
            q, k, v = jnp.split(norm(p["norm0"], a) @ p["qkv"]["kernel"], 3, axis=-1)
            q, k, v = (b.reshape(*b.shape[:2], 2, -1) for b in (q, k, v))
            q, k = rotate(norm(p["norm_q"], q)), rotate(norm(p["norm_k"], k))
            weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1]), axis=-1)
            out = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(a.shape)
            a = a + p["gate0"] * (out @ p["proj"]["kernel"])
            b = norm(p["norm1"], a)
            b = jax.nn.silu(b @ p["mlp_gate"]["kernel"]) * (b @ p["mlp_in"]["kernel"])
            a = a + p["gate1"] * (b @ p["mlp_out"]["kernel"])
        return a

    vectors = {
        "label": params["embed_label"]["embedding"][labels],
        "omega": embed(params["embed_omega"], 1 - 1 / omega),
    }
    vectors |= {name: embed(params[f"embed_{name}"], a) for name, a in {"low": low, "high": high, "h": h}.items()}
    prefix = [params[f"tokens_{name}"] + vector[:, None] for name, vector in vectors.items()]
    patches = patchify(x, 2) @ params["embed"]["kernel"]
    shared = run(params["shared"]["blocks"], jnp.concatenate([*prefix, patches], axis=1))
    outputs = []
    for name in ("u", "v"):
        own = run(params[f"blocks_{name}"]["blocks"], shared)[:, -patches.shape[1] :]
        own = norm(params[f"norm_{name}"], own) @ params[f"final_{name}"]["kernel"]
        outputs.append(unpatchify(own, 2, *x.shape[1:3]))
    return outputs


def test_equals_the_network_written_out(params, value):
    expected = jax.jit(plain)(params, *INPUTS)
    for ours, theirs in zip(value(*INPUTS), expected, strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_every_condition_changes_its_own_example_alone(value):
    base = value(*INPUTS)
    changes = ((1, H.at[1].add(0.3)), (2, LABELS.at[1].set(1)), (3, OMEGA.at[1].add(2.0)))
    for i, new in (*changes, (4, LOW.at[1].add(0.3)), (5, HIGH.at[1].add(0.3))):
        changed = value(*INPUTS[:i], new, *INPUTS[i + 1 :])
        for a, b in zip(changed, base, strict=True):
            assert jnp.abs(a[1] - b[1]).max() > 1e-4 * jnp.abs(b[1]).max()
            np.testing.assert_array_equal(a[::2], b[::2])


def test_derivative_along_the_state_and_the_interval(value):
    """Forward mode against central differences: what iMF's loss takes."""
    direction = jax.random.normal(jax.random.key(1), X.shape)

    def u(x, h):
        return value(x, h, *INPUTS[2:])[0]

    h = H.at[0].set(0.2)
    tangent = jax.jvp(u, (X, h), (direction, jnp.ones(3)))[1]
    difference = (u(X + 1e-2 * direction, h + 1e-2) - u(X - 1e-2 * direction, h - 1e-2)) / 2e-2
    np.testing.assert_allclose(tangent, difference, atol=5e-3 * float(jnp.abs(tangent).max()))


def test_initial_weights():
    variables = jax.jit(MODULE.init)(jax.random.key(0), *INPUTS)
    for out in jax.jit(MODULE.apply)(variables, *INPUTS):
        assert not jnp.any(out)
    blocks = variables["params"]["shared"]["blocks"]
    assert not jnp.any(blocks["gate0"])
    assert not jnp.any(blocks["gate1"])
    np.testing.assert_allclose(blocks["qkv"]["kernel"].std(), 0.32 / 4, rtol=0.1)
    assert not any("bias" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables))


def test_rotation_makes_products_depend_on_the_distance_alone():
    q, k = (jnp.broadcast_to(a, (1, 9, 1, 8)) for a in jax.random.normal(jax.random.key(2), (2, 8)))
    products = jnp.einsum("bqhd,bkhd->bhqk", rotate(q), rotate(k))[0, 0]
    for distance in (-3, 0, 2):
        diagonal = jnp.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4, atol=1e-5)
    assert jnp.abs(products[0, 0] - products[0, 3]) > 1e-3
    np.testing.assert_allclose(jnp.linalg.norm(rotate(q), axis=-1), jnp.linalg.norm(q, axis=-1), rtol=1e-5)


def test_attention_is_the_callable_that_was_passed(params, value):
    average = MODULE.clone(attention=lambda q, k, v: jnp.broadcast_to(v.mean(1, keepdims=True), q.shape))
    other = jax.jit(average.apply)({"params": params}, *INPUTS)
    assert jnp.abs(other[0] - value(*INPUTS)[0]).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "labels", "message"),
    [
        ({"patch": 5}, LABELS, "not divisible into patches of 5"),
        ({"heads": 3}, LABELS, "not divisible into heads=3 of even size"),
        ({"head_depth": 3}, LABELS, r"head_depth must lie in \[1, 2\], got 3"),
        ({}, None, "labels go with num_classes > 0, got num_classes=5"),
        ({"num_classes": 0}, LABELS, "labels go with num_classes > 0, got num_classes=0"),
    ],
)
def test_what_does_not_fit_is_refused(settings, labels, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            partial(MODULE.clone(**settings).init, jax.random.key(0)), X, H, labels, OMEGA, LOW, HIGH
        )  # fmt: skip
