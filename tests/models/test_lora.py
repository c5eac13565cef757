import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import DiT
from models.lora import adapted, is_kernel, lora
from tests.models.conftest import random_params

X = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
T, LABELS = jnp.array([0.3, 0.8]), jnp.array([0, 1])
MODULE = DiT(patch=2, width=16, depth=2, heads=2, num_classes=2)


@pytest.fixture(scope="module")
def params():
    """A transformer's parameters, no one zero."""
    return random_params(MODULE, X, T, LABELS)["params"]


def trained(adapters, seed):
    """Adapters as training may leave them: no factor is zero."""
    leaves, structure = jax.tree.flatten(adapters)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


def test_fresh_adapters_of_all_kernels_change_nothing(params):
    adapters = lora(jax.random.key(0), params, rank=3)
    blocks = ("mlp0", "mlp1", "modulation", "self_attention/proj", "self_attention/qkv")
    outside = ("conditioning/t/linear0", "conditioning/t/linear1", "embed", "final", "modulation")
    assert set(adapters) == {*(f"blocks/{name}/kernel" for name in blocks), *(f"{name}/kernel" for name in outside)}
    assert jax.tree.map(jnp.shape, adapters["blocks/mlp0/kernel"]) == {"down": (2, 16, 3), "up": (2, 3, 64)}
    assert jax.tree.map(jnp.shape, adapters["embed/kernel"]) == {"down": (4, 3), "up": (3, 16)}
    jax.tree.map(np.testing.assert_array_equal, adapted(params, adapters), params)


def test_down_has_a_variance_of_one_over_fan_in():
    kernels = {"kernel": jnp.zeros((4, 3, 3, 50, 7))}  # four stacked convolutions
    down = lora(jax.random.key(0), kernels, rank=40)["kernel"]["down"]
    assert down.shape == (4, 3, 3, 50, 40)
    np.testing.assert_allclose(down.std((1, 2, 3, 4)), (9 * 50) ** -0.5, rtol=0.02)


@pytest.mark.parametrize(
    ("layer", "x", "up"),
    [
        (nn.Dense(5), X[..., 0], nn.Dense(5, use_bias=False)),
        (nn.Conv(5, (3, 3)), X, nn.Conv(5, (1, 1), use_bias=False)),
    ],
)
def test_a_merge_equals_the_layer_with_its_adapter_beside_it(layer, x, up):
    params = random_params(layer, x)["params"]
    adapters = trained(lora(jax.random.key(0), params, rank=2), 1)
    down_kernel, up_kernel = adapters["kernel"]["down"], adapters["kernel"]["up"]
    down = layer.clone(features=2, use_bias=False)
    h = down.apply({"params": {"kernel": down_kernel}}, x)
    window = (1,) * (down_kernel.ndim - 2)
    beside = up.apply({"params": {"kernel": up_kernel.reshape(*window, 2, 5)}}, h)
    merged = layer.apply({"params": adapted(params, adapters, scale=0.5)}, x)
    np.testing.assert_allclose(merged, layer.apply({"params": params}, x) + 0.5 * beside, atol=3e-6)


def test_each_layer_of_a_scan_gets_its_own_adapter():
    params = {"kernel": jax.random.normal(jax.random.key(0), (3, 4, 5))}
    adapters = trained(lora(jax.random.key(1), params, rank=2), 2)
    together = adapted(params, adapters)["kernel"]
    for i, kernel in enumerate(params["kernel"]):
        factors = {name: factor[i] for name, factor in adapters["kernel"].items()}
        alone = adapted({"kernel": kernel}, {"kernel": factors})
        np.testing.assert_allclose(together[i], alone["kernel"], rtol=1e-6, atol=1e-6)


def test_adapters_add_up_and_a_merge_can_be_undone(params):
    one, two = (trained(lora(jax.random.key(0), params, rank=r), r) for r in (1, 2))
    both = adapted(adapted(params, one, scale=0.7), two, scale=0.2)
    other = adapted(adapted(params, two, scale=0.2), one, scale=0.7)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), both, other)
    undone = adapted(adapted(params, one), one, scale=-1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), undone, params)
    assert np.abs(both["embed"]["kernel"] - params["embed"]["kernel"]).min() > 0


def test_one_step_moves_up_alone_and_lowers_the_loss(params):
    adapters = lora(jax.random.key(0), params, rank=2)

    @jax.jit
    def loss(adapters):
        out = jnp.asarray(MODULE.apply({"params": adapted(params, adapters)}, X, T, LABELS))
        return jnp.mean(jnp.square(out - 1.0))

    gradient = jax.grad(loss)(adapters)
    down, up = ([leaf[name] for leaf in gradient.values()] for name in ("down", "up"))
    assert all(not np.any(leaf) for leaf in down)
    assert all(np.any(leaf) for leaf in up)
    moved = jax.tree.map(lambda a, g: a - 1e-3 * g, adapters, gradient)
    assert loss(moved) < loss(adapters)


def test_half_precision_stays():
    params = {"kernel": jnp.full((2, 2), 256.0, jnp.bfloat16)}
    adapters = {"kernel": {"down": jnp.full((2, 1), 1.0), "up": jnp.full((1, 2), 3.0)}}
    once = adapted(params, adapters)["kernel"]
    assert once.dtype == jnp.bfloat16
    np.testing.assert_array_equal(once.astype(jnp.float32), 260.0)  # 259 is not a bfloat16


def test_what_is_selected(params):
    attention = lora(jax.random.key(0), params, rank=1, select=lambda path, leaf: "attention" in path and leaf.ndim > 2)
    assert set(attention) == {"blocks/self_attention/proj/kernel", "blocks/self_attention/qkv/kernel"}
    assert not is_kernel("blocks/mlp0/bias", jnp.zeros((2, 4)))
    with pytest.raises(ValueError, match="no leaf was selected"):
        lora(jax.random.key(0), params, rank=1, select=lambda path, leaf: False)
    with pytest.raises(ValueError, match=r"embed/bias of shape \(16,\) is no kernel"):
        lora(jax.random.key(0), params, rank=1, select=lambda path, leaf: path == "embed/bias")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        lora(jax.random.key(0), params, rank=0)


def test_adapters_of_another_network_are_refused(params):
    adapters = lora(jax.random.key(0), params, rank=1)
    with pytest.raises(ValueError, match=r"adapter of embedding/kernel, .* closest: embed/kernel"):
        adapted(params, {"embedding/kernel": adapters["embed/kernel"]})
    with pytest.raises(ValueError, match=r"embed/kernel has shape \(4, 16\), its adapter makes \(16, 4\)"):
        adapted(params, {"embed/kernel": adapters["final/kernel"]})
