from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from samplers import edit, editing, multistep_consistency, noise, normal, sample_keys
from tests.oracles import PATHS, Gaussian, gaussian_consistency

EDM, LINEAR = PATHS["edm"].path, PATHS["linear"].path
SHAPE = (8, 4, 3)
TASKS = {
    "inpainting": editing.inpainting(np.arange(8 * 4).reshape(8, 4, 1) % 3 > 0),
    "colourisation": editing.colourisation(),
    "super_resolution": editing.super_resolution(2),
}


def batch(n, shape=SHAPE, seed=0):
    """Keys, and images that do not come from them."""
    return sample_keys(seed, jnp.arange(n)), jnp.tanh(normal(sample_keys(seed + 1000, jnp.arange(n)), shape))


def net(x, t):
    """Anything that mixes the elements of an example and not the examples."""
    return jnp.tanh(jnp.roll(x, 1, axis=1) + 0.3 * x) / (1 + t.reshape(-1, *(1,) * (x.ndim - 1)))


def sample(task, reference, times, keys, *, path=EDM, **others):
    """`edit` with that network, compiled as a whole."""
    return jax.jit(partial(edit, net, times=times, task=task, path=path, **others))(reference=reference, keys=keys)


def strokes(reference, times, keys):
    return jax.jit(partial(editing.stroke_guided, net, times=times, path=EDM))(reference=reference, keys=keys)


def never(x, t):
    raise AssertionError("the network was called")


# ---- Bases -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", TASKS)
def test_a_basis_is_orthonormal_and_inverts(name):
    task = TASKS[name]
    d = int(np.prod(SHAPE))
    unit = jnp.eye(d).reshape(d, *SHAPE)
    matrix = np.asarray(task.transform(unit)).reshape(d, d)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(d), atol=1e-14)
    np.testing.assert_allclose(task.inverse(task.transform(unit)), unit, atol=1e-14)


@pytest.mark.usefixtures("float64")
def test_luma_is_what_colourisation_knows():
    _, x = batch(4)
    luma = np.asarray([0.299, 0.587, 0.114])
    known = editing.known_part(x, TASKS["colourisation"])
    np.testing.assert_allclose(known @ luma, x @ luma, rtol=1e-12)
    grey = jnp.repeat((x @ luma)[..., None], 3, axis=-1)
    np.testing.assert_allclose(editing.known_part(grey, TASKS["colourisation"]), known, atol=1e-14)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("patch", [2, 4])
def test_patch_means_are_what_super_resolution_knows(patch):
    _, x = batch(4)
    means = x.reshape(4, 8 // patch, patch, 4 // patch, patch, 3).mean(axis=(2, 4))
    repeated = jnp.repeat(jnp.repeat(means, patch, axis=1), patch, axis=2)
    task = editing.super_resolution(patch)
    np.testing.assert_allclose(editing.known_part(x, task), repeated, atol=1e-14)
    np.testing.assert_allclose(editing.known_part(repeated, task), repeated, atol=1e-14)


# ---- The algorithm ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "times"), [("inpainting", [2.0]), *((name, [5.0, 1.0, 0.2]) for name in TASKS)], ids=str
)
def test_known_coefficients_are_those_of_the_reference(name, times):
    task = TASKS[name]
    keys, reference = batch(4)
    x = sample(task, reference, times, keys)
    generated = np.broadcast_to(task.mask, task.transform(x).shape)
    known, got = (np.asarray(task.transform(image)) for image in (reference, x))
    # Exact but for the rounding of two changes of basis.
    np.testing.assert_allclose(got[~generated], known[~generated], atol=0 if name == "inpainting" else 2e-6)
    assert np.abs(got - known)[generated].min() > 0


def test_every_call_sees_the_known_coefficients_and_the_last_image_has_no_noise():
    """What enters a call is alpha x + sigma z with x exact in the known coefficients; nothing follows the last."""
    keys, reference = batch(2)
    mask = np.zeros((8, 4, 1), bool)
    mask[:4] = True
    times, seen = [0.9, 0.6, 0.3], []

    def net(x, t):
        seen.append((float(t[0]), x))
        return jnp.full_like(x, 7.0)

    with jax.disable_jit():
        got = edit(net, reference, times, keys, task=editing.inpainting(mask), path=LINEAR)
    np.testing.assert_array_equal(got[:, 4:], reference[:, 4:])
    np.testing.assert_array_equal(got[:, :4], 7.0)
    assert [t for t, _ in seen] == pytest.approx(times)
    for number, (t, x) in enumerate(seen):
        z = noise.normal(noise.fold_in(keys, number), SHAPE)
        unknown = 0.0 if number == 0 else 7.0
        expected = (1 - t) * jnp.where(mask, unknown, reference) + t * z
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "task"),
    [("edm", "inpainting"), ("linear", "colourisation"), ("trigflow", "super_resolution")],
)
def test_all_unknown_is_multistep_sampling(name, task):
    path, _, high = PATHS[name]
    keys, reference = batch(3)
    times, start = [0.9 * high, 0.3 * high], jnp.asarray(0.9 * high)
    unknown = TASKS[task]._replace(mask=np.ones_like(TASKS[task].mask))
    got = sample(unknown, reference, times, keys, path=path, sigma_min=0.002)
    x = path.sigma(start) * noise.initial(keys, SHAPE)
    plain = jax.jit(partial(multistep_consistency, net, times=times, path=path, sigma_min=0.002))(x, keys=keys)
    np.testing.assert_allclose(got, plain, atol=2e-5)


@pytest.mark.parametrize("task", TASKS)
def test_nothing_unknown_is_the_reference(task):
    keys, reference = batch(3)
    known = TASKS[task]._replace(mask=np.zeros_like(TASKS[task].mask))
    got = sample(known, reference, [5.0, 1.0], keys)
    np.testing.assert_allclose(got, reference, atol=0 if task == "inpainting" else 2e-6)


@pytest.mark.parametrize("task", TASKS)
def test_unknown_coefficients_of_the_reference_are_not_read(task):
    keys, reference = batch(3)
    masked = editing.known_part(reference, TASKS[task])
    assert jnp.abs(masked - reference).max() > 0.1
    a, b = (sample(TASKS[task], given, [5.0, 1.0], keys) for given in (masked, reference))
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("name", ["strokes", *TASKS])
def test_a_sample_depends_on_its_key_and_its_reference_alone(name):
    def run(reference, keys):
        times = [2.0, 0.5]
        return strokes(reference, times, keys) if name == "strokes" else sample(TASKS[name], reference, times, keys)

    keys, reference = batch(6)
    together = np.asarray(run(reference, keys))
    order = jnp.asarray([5, 0, 3])
    np.testing.assert_allclose(run(reference[order], keys[order]), together[order], rtol=1e-5, atol=1e-6)
    other_keys = run(reference, sample_keys(1, jnp.arange(6)))
    assert np.abs(other_keys - together).max(axis=(1, 2, 3)).min() > 0.01


def test_a_mask_for_every_image():
    keys, reference = batch(2)
    mask = np.zeros((2, *SHAPE), bool)
    mask[0, :2], mask[1, 5:] = True, True
    together = sample(editing.inpainting(mask), reference, [2.0, 0.5], keys)
    for i in range(2):
        task = editing.inpainting(mask[i])
        alone = sample(task, reference[i : i + 1], [2.0, 0.5], keys[i : i + 1])
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-6)


def test_state_keeps_its_dtype():
    def half(x, t):
        return x.astype(jnp.bfloat16)

    keys, reference = batch(2)
    for dtype in (jnp.float32, jnp.bfloat16):
        given = reference.astype(dtype)
        runs: list[Any] = [editing.stroke_guided, *(partial(edit, task=task) for task in TASKS.values())]
        for run in runs:
            got = jax.eval_shape(partial(run, half, times=[2.0, 1.0], path=EDM), given, keys=keys)
            assert got.dtype == dtype


# ---- Other uses of a consistency function ----------------------------------------------------------------------------


@pytest.mark.usefixtures("float64", "no_noise")
def test_stroke_guided_mean_between_the_painting_and_the_data():
    """f(x, t) = m + k(t) (x - m), so that the painting keeps the share k(t_1) k(t_2) of its distance."""
    painting = jnp.asarray([[2.0, -1.0]])
    data, times = Gaussian(0.3, 0.7), [3.0, 1.0]
    f = partial(gaussian_consistency, data, EDM)
    got = editing.stroke_guided(f, painting, times, sample_keys(0, jnp.arange(1)), path=EDM)
    share = np.prod([0.7 / np.hypot(0.7, t) for t in times])
    np.testing.assert_allclose(got, 0.3 + share * (painting - 0.3), rtol=1e-12)


def test_stroke_guided_starts_at_the_noised_painting():
    keys, painting = batch(2)
    got = editing.stroke_guided(lambda x, t: x, painting, [0.6], keys, path=LINEAR)
    np.testing.assert_allclose(got, 0.4 * painting + 0.6 * noise.initial(keys, SHAPE), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", PATHS)
def test_denoise_is_the_flow_from_the_level_of_each_image(name):
    """Whatever the path, noise of standard deviation 0.5 and 2 leaves the share of T3: s / sqrt(s^2 + noise^2)."""
    path, low, high = PATHS[name]
    grid = jnp.linspace(low, high, 200_001)
    noise_std = path.sigma(grid) / path.alpha(grid)
    t = jnp.interp(jnp.asarray([0.5, 2.0]), noise_std, grid)
    noisy = jnp.asarray([[1.0, -2.0], [4.0, 0.3]])
    got = editing.denoise(partial(gaussian_consistency, Gaussian(0.3, 0.7), path), noisy, t, path=path)
    share = 0.7 / np.hypot(0.7, np.asarray([[0.5], [2.0]]))
    np.testing.assert_allclose(got, 0.3 + share * (noisy - 0.3), rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_interpolation_of_noise():
    """Ends are the ends; between vectors of one norm the norm stays, and the angle goes in equal steps."""
    a, b = (normal(sample_keys(seed, jnp.arange(5)), SHAPE) for seed in (0, 1))
    for share, end in ((0.0, a), (1.0, b)):
        np.testing.assert_allclose(editing.interpolate_noise(a, b, jnp.full(5, share)), end, atol=1e-14)
    unit_a, unit_b = (z / jnp.linalg.norm(z.reshape(5, -1), axis=1).reshape(5, 1, 1, 1) for z in (a, b))
    shares = jnp.asarray([0.1, 0.25, 0.5, 0.7, 0.9])
    got = editing.interpolate_noise(unit_a, unit_b, shares)
    np.testing.assert_allclose(jnp.sum(got**2, axis=(1, 2, 3)), 1, rtol=1e-13)
    angle = jnp.arccos(jnp.sum(unit_a * unit_b, axis=(1, 2, 3)))
    np.testing.assert_allclose(jnp.arccos(jnp.sum(unit_a * got, axis=(1, 2, 3))), shares * angle, rtol=1e-10)


def test_interpolation_of_equal_noise_is_that_noise():
    """0/0 of the formula, in the value and in its derivatives."""
    a, b = jnp.ones((2, 3)), jnp.asarray([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    share = jnp.asarray([0.3, 0.5])
    np.testing.assert_allclose(editing.interpolate_noise(a, b, share), [[1.0] * 3, [1.5] * 3], rtol=1e-5)
    gradients = jax.grad(lambda *given: editing.interpolate_noise(*given).sum(), argnums=(0, 1, 2))(a, b, share)
    assert all(jnp.isfinite(g).all() for g in gradients)


# ---- What is refused -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(SHAPE), "a mask is boolean, True where to generate, got float64"),
        (np.ones((8, 4), bool), r"for coefficients \(2, 8, 4, 3\) is \(8, 4, 3\), or .*, got \(8, 4\)"),
        (np.ones((4, 8, 1), bool), r"got \(4, 8, 1\)"),
        (np.ones((3, 8, 4, 1), bool), r"got \(3, 8, 4, 1\)"),
        (np.ones((1, 2, 8, 4, 1), bool), r"got \(1, 2, 8, 4, 1\)"),
        (np.ones(3, bool), r"got \(3,\)"),
    ],
)
def test_bad_masks(mask, message):
    keys, reference = batch(2)
    with pytest.raises(ValueError, match=message):
        edit(never, reference, [2.0, 1.0], keys, task=editing.inpainting(mask), path=EDM)


@pytest.mark.parametrize(
    ("shape", "task", "message"),
    [
        ((8, 8, 1), editing.colourisation(), r"RGB images \[B, H, W, 3\], got shape \(2, 8, 8, 1\)"),
        ((8, 3), editing.colourisation(), r"RGB images \[B, H, W, 3\], got shape \(2, 8, 3\)"),
        ((8, 8, 3), editing.super_resolution(3), r"patch=3 must divide .*, got shape \(2, 8, 8, 3\)"),
        ((8, 6, 3), editing.super_resolution(4), r"patch=4 must divide .*, got shape \(2, 8, 6, 3\)"),
        ((8, 8), editing.super_resolution(2), r"patch=2 must divide .*, got shape \(2, 8, 8\)"),
    ],
)
def test_bad_images(shape, task, message):
    keys, reference = batch(2, shape)
    with pytest.raises(ValueError, match=message):
        edit(never, reference, [2.0, 1.0], keys, task=task, path=EDM)


@pytest.mark.parametrize("patch", [1, 0, -2])
def test_bad_patch(patch):
    with pytest.raises(ValueError, match=f"at least 2 pixels, got {patch}"):
        editing.super_resolution(patch)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("n", [1, 3])
def test_a_key_for_each_reference(n):
    _, reference = batch(2)
    keys = sample_keys(0, jnp.arange(n))
    for run in (partial(edit, task=TASKS["inpainting"]), editing.stroke_guided):
        with pytest.raises(ValueError, match=f"one key for each reference image, got {n} keys for 2 images"):
            run(never, reference, [2.0, 1.0], keys, path=EDM)


def test_bad_times():
    keys, reference = batch(2)
    for run in (partial(edit, task=TASKS["inpainting"]), editing.stroke_guided):
        with pytest.raises(ValueError, match=r"must fall from noise to data, strictly, got \[1. 2.\]"):
            run(never, reference, [1.0, 2.0], keys, path=EDM)
        with pytest.raises(ValueError, match=r"must stay above the end 0.002"):
            run(never, reference, [1.0, 0.001], keys, path=EDM, sigma_min=0.002)
