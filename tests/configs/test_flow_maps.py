"""Configs of flow maps: what their samplers draw, where Align Your Flow starts, and which residual is of which rows."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits_ayf, digits_rectified_flow, flow_maps, imagenet256_mean_flow, imagenet256_shortcut
from losses import flow_map_matching, pairs, triples
from samplers import noise
from tests.configs import made_up
from tests.configs.made_up import module, small
from train import Context, restore_average


def test_one_step_of_a_flow_map_is_the_mean_velocity_of_the_whole_way():
    """As the network says it, told 1 and 0; of Shortcut, told 1 and log2(1)."""
    keys, labels = jax.random.split(jax.random.key(0), 2), jnp.arange(2)
    z = noise.initial(keys, (8, 8, 1))
    for second in (flow_maps.end_itself, flow_maps.log2_step):
        assert second(jnp.ones(1), jnp.zeros(1)) == 0
    experiment = module("digits_shortcut").build(small("digits_shortcut"))
    params = made_up.params(experiment)
    model = module("digits").network(small("digits_shortcut"), module("digits").data.digits()).clone(second_time=True)
    (one,) = (sampler for sampler in experiment.samplers if sampler.nfe == 1)
    u = model.apply({"params": params}, z, jnp.ones(2), labels, s=jnp.zeros(2))
    np.testing.assert_allclose(one.sample(params, keys, labels), z - u, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_align_your_flow_starts_from_the_flow_it_distils(runs):
    workdir = runs("digits_rectified_flow")
    experiment = digits_ayf.build(small("digits_ayf", teacher_run=str(workdir)))
    assert experiment.initial is not None
    ours = dict(jax.tree_util.tree_leaves_with_path(experiment.initial()))
    flow = digits_rectified_flow.flow(small("digits_rectified_flow"))
    theirs = dict(jax.tree_util.tree_leaves_with_path(restore_average(workdir, flow.average)[0]))
    assert ours.keys() > theirs.keys()
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(ours[path], leaf)


@pytest.mark.slow
def test_what_is_no_flow_cannot_be_aligned(runs):
    with pytest.raises(ValueError, match="does not train a flow"):
        digits_ayf.build(small("digits_ayf", teacher_run=str(runs("digits_teacher"))))
    with pytest.raises(ValueError, match="needs a trained flow"):
        digits_ayf.build(small("digits_ayf")).frozen()


def test_guidance_of_the_smallest_step_alone():
    def u_of(params, labels):
        return lambda x_t, t, s: x_t + labels[:, None]

    labels, x, t = jnp.asarray([1, 2, 3, 4]), jnp.zeros((4, 1)), jnp.ones(4)
    u = imagenet256_shortcut.guided_where_smallest(u_of, None, labels, null=10, scale=1.5, rows=2)
    np.testing.assert_allclose(u(x, t, t / 2)[:, 0], [10 + 1.5 * (1 - 10), 10 + 1.5 * (2 - 10), 3, 4])


@pytest.mark.parametrize("floor", [0.1, 0.0])
def test_with_a_floor_nothing_is_gained_from_a_weight_without_bound(floor):
    """Of rows without a residual: floor exp(w) - w, which is 1 + ln(floor) at least, and with no floor just -w."""

    def solved(u, x, key):
        t = jax.random.uniform(key, (len(x),))
        return jnp.zeros(len(x)), {"t": t, "s": t / 2, "distance": jnp.zeros(len(x))}

    config = small("digits_lsd", floor=floor)
    experiment = flow_maps.digits_self_distilled(config, solved)
    params = experiment.init(jax.random.key(0))
    batch = experiment.prepare(jax.random.key(1), jax.tree.map(jnp.asarray, next(experiment.batches(0))))
    context = Context(jnp.zeros((), int), None, {})
    rows = round(config.share * config.batch_size)
    lowest = []
    for size in (1.0, 10.0, 50.0, -50.0):
        weights = jax.random.normal(jax.random.key(2), params["start"]["linear"]["kernel"].shape) * size / 128**0.5
        weighed = params | {"start": {"linear": {"kernel": weights}}}
        lowest.append(float(experiment.objective(weighed, batch, jax.random.key(3), context)[0][:rows].min()))
    if floor:
        assert min(lowest) >= 1 + np.log(floor) - 1e-5
    else:
        assert min(lowest) < -20


SPLIT, HALVED = (partial(law, pairs=pairs.ordered) for law in (triples.split, triples.midpoint))
RESIDUALS: tuple[tuple[str, dict[str, bool], Any], ...] = (
    ("imagenet256_lsd", {}, partial(flow_map_matching.lagrangian, pairs=pairs.ordered)),
    ("imagenet256_esd", {}, partial(flow_map_matching.eulerian, pairs=pairs.ordered)),
    ("imagenet256_psd", {}, partial(flow_map_matching.semigroup, triples=HALVED)),
    ("imagenet256_psd", {"uniform": True}, partial(flow_map_matching.semigroup, triples=SPLIT)),
)


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(("name", "values", "residual"), RESIDUALS)
def test_the_first_rows_of_latents_have_the_residual_of_their_method(name, values, residual):
    config = small(name, **values)
    experiment = module(name).build(config)
    params = made_up.params(experiment)
    batch = experiment.prepare(jax.random.key(1), jax.tree.map(jnp.asarray, next(experiment.batches(0))))
    context = Context(jnp.zeros((), int), None, {})
    key, n = jax.random.key(3), round(config.share * config.batch_size)
    _, metrics = experiment.objective(params, batch, key, context)
    model = imagenet256_mean_flow.network(config, made_up.CLASSES)
    u = flow_maps.average_velocity(model)(params["network"], batch["label"][:n])
    _, expected = residual(u, batch["image"][:n], jax.random.split(key)[0])
    elements = batch["image"][0].size
    np.testing.assert_allclose(metrics["distance"][:n], expected["distance"] / elements, rtol=1e-4)
    assert 0 < n < len(metrics["t"])
    assert len(metrics["t"]) == config.batch_size


@pytest.mark.parametrize("name", ["lsd", "esd", "psd", "ayf"])
def test_sizes_are_those_of_sit(name):
    get_config = module(f"imagenet256_{name}").get_config
    assert get_config().to_dict() == get_config("XL").to_dict()
    with pytest.raises(ValueError, match="size is 'Q', it must be one of S, B, L, XL"):
        get_config("Q")
