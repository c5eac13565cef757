"""Couplings: noise stays N(0, I) as a whole, and optimal transport pairs as brute force and SciPy do."""

import json
from functools import partial
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from losses import consistency, couplings
from losses.couplings import on_host, optimal_transport
from tests.children import on_devices

on_scipy = on_host(linear_sum_assignment)
SOLVERS = {"scipy": on_scipy, "optax": optax.assignment.hungarian_algorithm}


def test_independent_noise_is_standard_and_leaves_the_data():
    x = jax.random.normal(jax.random.key(0), (4096, 2, 2))
    same, z = couplings.independent(jax.random.key(1), x)
    assert same is x
    assert z.shape == x.shape
    assert z.dtype == x.dtype
    n = x.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((x * z).mean()) < 4 / np.sqrt(n)


def test_noise_has_the_precision_of_the_data():
    with jax.enable_x64(True):
        x = jnp.ones((2, 3), jnp.float64)
        assert couplings.independent(jax.random.key(1), x)[1].dtype == jnp.float64
        assert optimal_transport(jax.random.key(1), x, assign=on_scipy)[1].dtype == jnp.float64


# ---- Optimal transport -----------------------------------------------------------------------------------------------


def data(n: int, *shape: int) -> jax.Array:
    return 0.5 * jax.random.normal(jax.random.key(0), (n, *shape))


def squared(x: jax.Array, z: jax.Array) -> float:
    """Total cost of a pairing, in float64."""
    return float(np.sum((np.asarray(x, float) - np.asarray(z, float)) ** 2))


def sorted_rows(z: jax.Array) -> np.ndarray:
    flat = np.asarray(z).reshape(len(z), -1)
    return flat[np.lexsort(flat.T)]


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_permutation_of_a_small_batch_costs_less(solver):
    """And the noise is that of the independent coupling, every row of it once; the data stay where they are."""
    key, x = jax.random.key(1), data(5, 2, 3)
    _, drawn = couplings.independent(key, x)
    same, z = jax.jit(partial(optimal_transport, assign=SOLVERS[solver]))(key, x)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_allclose(sorted_rows(z), sorted_rows(drawn), rtol=1e-6)  # of another program
    costs = sorted(squared(x, drawn[jnp.asarray(order)]) for order in permutations(range(5)))
    np.testing.assert_allclose(squared(x, z), costs[0], rtol=1e-6)
    assert costs[1] > costs[0] + 1e-3


@pytest.mark.parametrize("scale", [1.0, 80.0])
def test_larger_batches_as_scipy_pairs_them_at_any_scale_of_the_noise(scale):
    key, x = jax.random.key(1), data(48, 6)
    _, drawn = couplings.independent(key, x)
    _, z = optimal_transport(key, x, assign=on_scipy)
    costs = np.sum((np.asarray(x, float)[:, None] - scale * np.asarray(drawn, float)) ** 2, axis=-1)
    np.testing.assert_array_equal(z, drawn[linear_sum_assignment(costs)[1]])
    assert squared(x, z) < 0.9 * squared(x, drawn)


@pytest.mark.usefixtures("float64")
def test_in_one_dimension_the_smallest_datum_gets_the_smallest_noise():
    """So that z is nearly x / std: the velocity given x_t hardly varies, which is what the coupling is for."""
    x, t = data(512, 1), 0.5
    _, z = optimal_transport(jax.random.key(1), x, assign=on_scipy)
    # In order: but for neighbours too close for the cost to tell.
    in_order = jnp.vdot(jnp.sort(x[:, 0]), jnp.sort(z[:, 0]))
    np.testing.assert_allclose(jnp.vdot(x, z), in_order, rtol=1e-6)
    assert in_order > 1.5 * jnp.vdot(x, couplings.independent(jax.random.key(1), x)[1])

    def unexplained(z):
        """Variance of dx_t/dt = z that the best linear function of x_t leaves."""
        return np.var(z) * (1 - np.corrcoef(np.ravel(z), np.ravel(x + t * z))[0, 1] ** 2)

    _, drawn = couplings.independent(jax.random.key(1), x)
    np.testing.assert_allclose(unexplained(drawn), 0.5, atol=4 * 0.5 * np.sqrt(2 / 512))  # s^2 / (s^2 + t^2)
    assert unexplained(z) < 0.01


def test_a_batch_of_one_is_paired_with_its_own_noise():
    key, x = jax.random.key(1), data(1, 3)
    np.testing.assert_array_equal(optimal_transport(key, x, assign=on_scipy)[1], couplings.independent(key, x)[1])


@pytest.mark.parametrize("solver", SOLVERS)
def test_with_labels_noise_is_exchanged_within_a_class_and_optimally(solver):
    """Classes far apart, of unequal sizes, one of a single example: across them would be much cheaper."""
    key, labels = jax.random.key(1), jnp.asarray([0, 1, 2, 0, 1, 0, 0, 1, 0, 1, 0, 0])
    x = data(12, 2) + 20 * labels[:, None]
    _, drawn = couplings.independent(key, x)
    _, z = optimal_transport(key, x, assign=SOLVERS[solver], labels=labels)
    for label in range(3):
        own = np.asarray(labels) == label
        np.testing.assert_array_equal(sorted_rows(z[own]), sorted_rows(drawn[own]))
        costs = np.sum((np.asarray(x)[own][:, None] - np.asarray(drawn)[own]) ** 2, axis=-1)
        np.testing.assert_array_equal(z[own], drawn[own][linear_sum_assignment(costs)[1]])
    _, unlabelled = optimal_transport(key, x, assign=SOLVERS[solver])
    assert squared(x, unlabelled) < squared(x, z) < squared(x, drawn)


def test_without_labels_the_noise_of_a_class_is_not_standard():
    """The reason for labels: the class with the larger data takes the larger noise."""
    labels = jnp.arange(256) % 2
    x = data(256, 1) + 2 * labels[:, None]
    means = {}
    for name, given in (("without", None), ("with", labels)):
        _, z = optimal_transport(jax.random.key(1), x, assign=on_scipy, labels=given)
        means[name] = float(z[labels == 1].mean())
    assert abs(means["with"]) < 4 / np.sqrt(128)
    assert means["without"] > 0.7  # all of the upper half of N(0, 1) has mean sqrt(2 / pi) = 0.798


def test_groups_are_paired_each_on_its_own():
    key, x, labels = jax.random.key(1), data(12, 2, 2), jnp.arange(12) // 2 % 2
    _, drawn = couplings.independent(key, x)
    _, z = jax.jit(partial(optimal_transport, assign=on_scipy, groups=3))(key, x, labels=labels)
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        cost = couplings.transport_cost(x[part], drawn[part], labels[part])
        np.testing.assert_array_equal(z[part], drawn[part][linear_sum_assignment(cost)[1]])
    np.testing.assert_array_equal(optimal_transport(key, x, assign=on_scipy, groups=12)[1], drawn)


def test_it_plugs_into_a_recipe_under_jit_and_grad():
    """Also where the data depend on what is differentiated, as latents of an encoder do."""
    x = data(16, 2)
    traces = []

    @jax.jit
    def gradient(scale, key):
        traces.append(key)

        def objective(scale):
            loss, _ = consistency(
                lambda x, t: scale * x, scale * x, key,
                pairs=lambda key, n: (jnp.full(n, 1.0), jnp.full(n, 0.5), jnp.ones(n)),
                coupling=partial(optimal_transport, assign=on_scipy),
            )  # fmt: skip
            return loss.mean()

        return jax.grad(objective)(scale)

    first, second = gradient(1.0, jax.random.key(1)), gradient(1.0, jax.random.key(2))
    assert jnp.isfinite(first)
    assert first != second
    assert len(traces) == 1


def test_data_that_are_not_finite_are_refused_by_the_solver():
    x = data(4, 2).at[1].set(jnp.nan)
    with pytest.raises(Exception, match="invalid numeric entries"):
        jax.block_until_ready(optimal_transport(jax.random.key(1), x, assign=on_scipy))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 0}, "batch of 6 .* 1 devices, got 0"),
        ({"groups": 4}, "divide the batch of 6 .* got 4"),
        ({"labels": jnp.zeros((6, 1), int)}, r"labels must be one per example, \(6,\), got \(6, 1\)"),
        ({"labels": jnp.zeros(3, int)}, r"got \(3,\)"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_groups_and_labels_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        optimal_transport(jax.random.key(0), data(6, 2), assign=on_scipy, **settings)


ON_DEVICES = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from scipy.optimize import linear_sum_assignment
from losses.couplings import on_host, optimal_transport

x, labels = 0.5 * jax.random.normal(jax.random.key(0), (32, 3)), jnp.arange(32) % 2
sizes = []

def solver(cost):
    sizes.append(cost.shape)
    return linear_sum_assignment(cost)

found = {}
for shape in ((2, 1), (4, 2)):
    devices = np.asarray(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    mesh = Mesh(devices, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    spread = jax.device_put((x, labels), NamedSharding(mesh, PartitionSpec(mesh.axis_names)))

    @jax.jit
    def pair(x, labels):
        return optimal_transport(
            jax.random.key(1), x, assign=on_host(solver), labels=labels, groups=8, mesh=mesh
        )[1]

    program = pair.lower(*spread).compile()
    gathers = [word for word in ("all-gather", "all-to-all", "all-reduce", "permute(") if word in program.as_text()]
    found[devices.size] = {"z": np.asarray(program(*spread)).tolist(), "gathers": gathers}

try:
    optimal_transport(jax.random.key(1), x, assign=on_host(solver), groups=4, mesh=mesh)
except ValueError as error:
    found["refused"] = str(error)
found["sizes"] = sorted(set(sizes))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_pairs_do_not_depend_on_the_devices_and_no_data_leave_them():
    """In a process of its own, with eight devices: on 2 and 8 of them, and here on one without a mesh.

    To the last places of the noise, which compilers compute in vectors of other lengths. Another pair is other noise.
    """
    found = json.loads(on_devices(8, "-c", ON_DEVICES))
    _, z = optimal_transport(jax.random.key(1), data(32, 3), assign=on_scipy, labels=jnp.arange(32) % 2, groups=8)
    for devices in ("2", "8"):
        np.testing.assert_allclose(found[devices]["z"], z, rtol=1e-6)
        assert found[devices]["gathers"] == []
    assert found["sizes"] == [[4, 4]]
    assert found["refused"] == "groups must divide the batch of 32 and be a multiple of the 8 devices, got 4"
