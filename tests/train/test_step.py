from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from losses import consistency, curricula, pairs
from tests.tiny import experiment, net_of
from train import make_mesh, make_step, place_state
from train.step import accumulated_gradient, by_noise_level


def quadratic(params, batch, key):
    residual = batch["x"] @ params["w"] - batch["y"]
    return residual**2, {"t": jnp.abs(batch["y"])}


@pytest.fixture
def problem():
    key_x, key_y, key_w = jax.random.split(jax.random.key(0), 3)
    batch = {"x": jax.random.normal(key_x, (12, 3)), "y": jax.random.normal(key_y, (12,))}
    return {"w": jax.random.normal(key_w, (3,))}, batch


@pytest.mark.parametrize("micro_batches", [1, 2, 3, 12])
def test_accumulated_gradients_equal_the_closed_form(problem, micro_batches):
    params, batch = problem
    gradient, (losses, metrics) = accumulated_gradient(
        quadratic, params, batch, jax.random.key(1), micro_batches=micro_batches
    )
    residual = batch["x"] @ params["w"] - batch["y"]
    np.testing.assert_allclose(gradient["w"], 2 * batch["x"].T @ residual / 12, rtol=1e-5, atol=1e-6)
    assert losses.shape == metrics["t"].shape == (12,)
    np.testing.assert_allclose(np.sort(losses), np.sort(residual**2), rtol=1e-6)


def test_each_micro_batch_has_its_own_key(problem):
    params, batch = problem

    def noise(params, batch, key):
        return 0 * batch["y"] + jax.random.normal(key), {}

    _, (losses, _) = accumulated_gradient(noise, params, batch, jax.random.key(1), micro_batches=3)
    assert len(np.unique(losses)) == 3


def test_losses_are_averaged_by_quarters_of_noise():
    t = jnp.array([0.3, 9.0, 0.1, 2.0, 0.2, 8.0, 3.0, 0.4])
    found = by_noise_level(t * 10, t)
    assert found == {
        "loss_t1": pytest.approx(1.5),
        "loss_t2": pytest.approx(3.5),
        "loss_t3": pytest.approx(25),
        "loss_t4": pytest.approx(85),
        "t_least": pytest.approx(0.1),
        "t_most": 9,
    }


def run(run_experiment, steps):
    mesh = make_mesh()
    step = make_step(run_experiment, mesh)
    state = place_state(run_experiment, mesh)
    batches = run_experiment.batches(0)
    scalars = []
    for _ in range(steps):
        state, found = step(state, next(batches), run_experiment.frozen())
        scalars.append(jax.device_get(found))
    return step, state, scalars


def test_whole_ect_run_with_every_stage_compiles_once():
    traces, stages = [], []

    def objective(params, batch, key, context):
        traces.append(1)
        stage = curricula.ect_stage(context.step, stage_steps=4, last=5)
        law = partial(pairs.ect, stage=stage)
        losses, metrics = consistency(net_of(params), batch["image"], key, pairs=law)
        return losses, metrics | {"stage": jnp.broadcast_to(stage, losses.shape)}

    _, state, scalars = run(experiment(objective=objective), 26)
    assert int(state.step) == 26
    stages = [float(s["stage"]) for s in scalars]
    assert stages == [min(k // 4, 5) for k in range(26)]
    assert len(traces) == 1


def test_the_state_passed_in_is_donated():
    tiny = experiment()
    mesh = make_mesh()
    state = place_state(tiny, mesh)
    make_step(tiny, mesh)(state, next(tiny.batches(0)), None)
    assert state.params["weight"].is_deleted()


def test_gradient_clipping_by_global_norm_bounds_the_update():
    clipped = experiment(optimizer=optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0)), averages={})
    start = jax.tree.map(np.asarray, place_state(clipped, make_mesh()).params)
    _, after, scalars = run(clipped, 1)
    moved = jax.tree.map(lambda a, b: np.asarray(a) - b, after.params, start)
    assert scalars[0]["gradient_norm"] > 1
    assert optax.tree.norm(moved) == pytest.approx(1e-3, rel=1e-3)


def test_frozen_parameters_reach_the_objective_and_stay():
    def objective(params, batch, key, context):
        return ((params["bias"] - context.frozen["target"]) ** 2).sum() + 0 * batch["image"][:, 0], {}

    frozen = {"target": jnp.full(16, 3.0)}
    _, state, scalars = run(experiment(objective=objective, frozen=lambda: frozen, optimizer=optax.sgd(0.1)), 30)
    np.testing.assert_allclose(state.params["bias"], 3.0, rtol=2e-3)
    assert scalars[-1]["loss"] < scalars[0]["loss"]


def test_objectives_see_the_averages_of_earlier_steps():
    def objective(params, batch, key, context):
        gap = jnp.abs(context.averages["constant"]["bias"] - params["bias"]).max()
        return (params["bias"] - 1).sum() ** 2 + 0 * batch["image"][:, 0], {"gap": jnp.full(len(batch["image"]), gap)}

    _, _, scalars = run(experiment(objective=objective), 3)
    assert scalars[0]["gap"] == 0
    assert scalars[1]["gap"] > 0
