"""Multistep consistency against its published algorithm, at limits that are other methods, and its arithmetic."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from losses import consistency, denoising, distances, paths, segment_consistency, steps
from losses.types import Net
from tests.losses.recorded import given, recorder
from tests.oracles import Gaussian

DATA = Gaussian(0.0, 0.7)


# ---- The published algorithm -----------------------------------------------------------------------------------------


def random_net(seed: int) -> Net:
    weight = np.random.default_rng(seed).normal(size=(2, 3, 3)) / 2

    def net(x, t):
        return jnp.tanh(x @ weight[0] + t[:, None]) @ weight[1]

    return net


def published_target(
    path: paths.Path, x: np.ndarray, z: np.ndarray, level: np.ndarray, segments: int, intervals: int,
    net: Net, teacher: Net | None, unguided: Net | None, eta: float,
) -> np.ndarray:  # fmt: skip
    """The target by aDDIM, the network, DDIM to the segment's end and inverse DDIM, as printed; x is [B, d]."""
    step, total = (level - 1) // intervals, segments * intervals
    t_step, t, s = step / segments, level / total, (level - 1) / total
    alpha, sigma = (lambda r, c=c: np.asarray(c(jnp.asarray(r)))[:, None] for c in path)

    z_t = alpha(t) * x + sigma(t) * z
    x_teacher = x if teacher is None else np.asarray(teacher(jnp.asarray(z_t), jnp.asarray(t)))
    x_judged = x_teacher if unguided is None else np.asarray(unguided(jnp.asarray(z_t), jnp.asarray(t)))
    x_variance = eta * np.mean((x_judged - x) ** 2, axis=1, keepdims=True)
    noise = (z_t - alpha(t) * x_teacher) / sigma(t)
    z_variance = (alpha(s) - alpha(t) * sigma(s) / sigma(t)) ** 2 * x_variance
    factor = x.shape[1] / np.sum(noise**2, axis=1, keepdims=True)
    z_s = alpha(s) * x_teacher + np.sqrt(sigma(s) ** 2 + factor * z_variance) * noise

    inside = (level - 1 > step * intervals)[:, None]
    x_ref = np.asarray(net(jnp.asarray(z_s), jnp.asarray(np.maximum(s, 1e-9))))
    ratio = sigma(t_step) / np.where(inside, sigma(s), 1)
    end = np.where(inside, alpha(t_step) * x_ref + ratio * (z_s - alpha(s) * x_ref), z_s)
    ratio = sigma(t_step) / sigma(t)
    return (end - ratio * z_t) / (alpha(t_step) - alpha(t) * ratio)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("mode", "segments", "intervals"),
    [
        ("training", 1, 4), ("training", 2, 3), ("training", 4, 8),
        ("distillation by ddim", 2, 3), ("distillation by ddim", 8, 1),
        ("distillation by addim", 1, 4), ("distillation by addim", 2, 3), ("distillation by addim", 4, 8),
        ("guided", 4, 8),
    ],
)  # fmt: skip
def test_target_is_that_of_the_published_algorithm(mode, segments, intervals):
    net, teacher, unguided = random_net(0), None, None
    if mode != "training":
        teacher = random_net(1)
    if mode == "guided":
        unguided = random_net(2)
    eta = 0.0 if mode == "distillation by ddim" else 0.75
    x, z = jax.random.normal(jax.random.key(0), (2, 32, 3))
    path = paths.cosine if segments != 2 else paths.linear
    run = recorder(net, segments=segments, teacher=teacher, unguided=unguided, eta=eta, path=path)
    t, goal = run(x, z, intervals)
    levels = np.rint(t * segments * intervals).astype(int)
    np.testing.assert_allclose(t, levels / (segments * intervals), rtol=1e-13)
    expected = published_target(
        path, np.asarray(x), np.asarray(z), levels, segments, intervals, net, teacher, unguided, eta
    )
    np.testing.assert_allclose(goal, expected, rtol=1e-9, atol=1e-10)


def test_levels_are_drawn_equally_often_up_to_the_end():
    count, segments, intervals = 20_000, 4, 5
    run = recorder(lambda x, t: x, segments=segments, path=paths.trig, end=np.pi / 2)
    t, _ = run(jnp.zeros((count, 1)), jnp.ones((count, 1)), intervals)
    levels = np.asarray(t) / (np.pi / 2) * 20
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-5)
    shares = np.bincount(np.rint(levels).astype(int), minlength=21) / count
    assert shares[0] == 0
    np.testing.assert_array_less(np.abs(shares[1:] - 1 / 20), 4 * np.sqrt(1 / 20 / count))


# ---- Limits that are other methods -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("distilled", [False, True])
def test_one_segment_is_a_consistency_model(distilled):
    """The recipe `consistency` on the cosine path, with the same draws: loss and gradient. One end is at the data."""
    x, z = jax.random.normal(jax.random.key(0), (2, 12, 3))
    teacher, n = random_net(1), 5

    def net(a):
        return lambda x, t: a * random_net(0)(x, t)

    def step(path, x, z, t, s):
        x_t = paths.interpolate(path, x, z, t)
        prediction = teacher(x_t, t)
        alpha, sigma = path.alpha(t)[:, None], path.sigma(t)[:, None]
        return path.alpha(s)[:, None] * prediction + path.sigma(s)[:, None] * (x_t - alpha * prediction) / sigma

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def ours(a):
        loss, metrics = segment_consistency(
            net(a), x, jax.random.key(1), segments=1, intervals=n, teacher=teacher if distilled else None, eta=0.0,
            coupling=given(x, z),
        )  # fmt: skip
        return loss.sum(), (loss, metrics["t"])

    (_, (loss, t)), gradient = ours(1.3)
    assert (t < 1.5 / n).any()
    assert (t > 1.5 / n).any()

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def theirs(a):
        s = jnp.where(t < 1.5 / n, 0.0, t - 1 / n)
        loss, _ = consistency(
            net(a), x, jax.random.key(1), pairs=lambda key, count: (t, s, 1 / jnp.sin(jnp.pi / 2 * t) ** 2),
            step=step if distilled else steps.same_noise, distance=partial(distances.pseudo_huber, c=1e-4),
            path=paths.cosine, coupling=given(x, z),
        )  # fmt: skip
        return loss.sum(), loss

    (_, expected), expected_gradient = theirs(1.3)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9)


@pytest.mark.usefixtures("float64")
def test_one_interval_a_segment_is_denoising():
    x, z = jax.random.normal(jax.random.key(0), (2, 12, 3))

    @jax.jit
    def run(x, z):
        loss, metrics = segment_consistency(
            random_net(0), x, jax.random.key(1), segments=16, intervals=1, coupling=given(x, z)
        )
        expected, _ = denoising(
            random_net(0), x, jax.random.key(1), times=lambda key, n: metrics["t"], path=paths.cosine,
            weight=lambda t: 1 / jnp.sin(jnp.pi / 2 * t) ** 2, coupling=given(x, z),
            distance=partial(distances.pseudo_huber, c=1e-4),
        )  # fmt: skip
        return loss, expected

    loss, expected = run(x, z)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)


# ---- Arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [1, 4])
@pytest.mark.parametrize("distilled", [False, True])
def test_float32_at_the_largest_published_number_of_intervals(distilled, segments):
    """1280 intervals in every segment, against the algorithm as printed in float64 at the same levels."""
    teacher, intervals = random_net(1) if distilled else None, 1280
    generator = np.random.default_rng(0)
    x, z = generator.normal(size=(2, 4096, 3)).astype(np.float32)
    run = recorder(random_net(0), segments=segments, teacher=teacher)
    t, goal = run(jnp.asarray(x), jnp.asarray(z), intervals)
    assert goal.dtype == jnp.float32
    levels = np.rint(np.asarray(t, np.float64) * segments * intervals).astype(int)
    with jax.enable_x64(True):
        exact = published_target(
            paths.cosine, x.astype(float), z.astype(float), levels, segments, intervals, random_net(0), teacher, None,
            0.75,
        )  # fmt: skip
    error = np.linalg.norm(goal - exact, axis=1) / np.linalg.norm(exact, axis=1)
    # The largest is in a segment's first few intervals, whose length float32 times know to 1e-3.
    assert error.max() < 1e-3
    assert np.median(error) < 1e-6


def test_the_network_is_never_asked_at_the_data():
    @jax.jit
    def run():
        asked = []

        def net(x, t):
            asked.append(t)
            return x

        segment_consistency(net, jnp.ones((64, 3)), jax.random.key(0), segments=2, intervals=2, teacher=net)
        return asked

    asked = run()
    assert len(asked) == 3
    assert all((t > 0).all() for t in asked)


@pytest.mark.parametrize("distilled", [False, True])
def test_finite_at_every_level_under_one_program(distilled):
    """Images, a network that takes ln t, NaNs forbidden on the way; the number of intervals is traced."""
    x = jax.random.normal(jax.random.key(0), (256, 2, 2, 1))
    traces = []

    def net(a):
        return lambda x, t: (a * x + jnp.log(t).reshape(-1, 1, 1, 1)).astype(jnp.bfloat16)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def step(a, intervals):
        traces.append(intervals)
        loss, metrics = segment_consistency(
            net(a), x, jax.random.key(1), segments=4, intervals=intervals, teacher=net(0.5) if distilled else None
        )
        return loss.sum(), (loss, metrics)

    with jax.debug_nans(True):
        for intervals in (1, 2, 16):
            (_, (loss, metrics)), gradient = step(0.7, jnp.asarray(intervals))
            assert jnp.isfinite(loss).all()
            assert jnp.isfinite(gradient)
            assert {loss.dtype, *(value.dtype for value in metrics.values())} == {jnp.dtype(jnp.float32)}
            assert (metrics["t"] < 1.5 / (4 * intervals)).any()  # next to the data
            assert metrics["t"].max() == 1
    assert len(traces) == 1


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("net", [lambda x, t: x.mean(axis=1, keepdims=True), lambda x, t: x[:1]])
def test_wrong_output_shape(net):
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        jax.eval_shape(partial(segment_consistency, net, segments=2, intervals=2), jnp.ones((4, 3)), jax.random.key(0))


@pytest.mark.parametrize(("value", "message"), [({"segments": 0}, "got segments=0"), ({"end": 0.0}, "end=0.0")])
def test_segments_that_do_not_exist_are_refused(value, message):
    with pytest.raises(ValueError, match=message):
        segment_consistency(
            random_net(0), jnp.ones((2, 3)), jax.random.key(0), **{"segments": 2, "intervals": 4, **value}
        )
