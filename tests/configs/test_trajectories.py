import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import digits_pcm, digits_students, digits_tcd, trajectories
from losses import conversions, edm, elementwise_pseudo_huber, paths, scaled, trig
from losses.adversarial import hinge_generator, saturating_hinge_generator
from models import DiT
from tests.configs import made_up
from tests.configs.made_up import module, small
from train import Context, check

SD = paths.scaled_linear_beta()
X = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
T, S = jnp.array([999.0, 759.0, 19.0]), jnp.array([0.0, 500.0, 19.0])
LABELS = jnp.array([0, 1, 2])


def told_the_end():
    """The network that digits_ctm.py and digits_tcd.py train, small, and parameters none of which is zero."""
    model = DiT(patch=4, width=16, depth=1, heads=2, num_classes=10, second_time=True)
    shapes = jax.eval_shape(model.init, jax.random.key(0), X, T, LABELS, s=S)["params"]
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape).astype(leaf.dtype), shapes)


def test_a_network_that_is_told_the_end_is_one_on_every_path():
    model, params = told_the_end()
    config = small("digits_tcd")
    trigflow = scaled(trig, config.sigma_data)

    def g(path, x_t, t, s):
        return jax.jit(digits_students.on_path_with_end(model, config, path)(params, LABELS))(x_t, t, s)

    alpha = SD.alpha(T)
    sigma, end = (SD.sigma(r) / SD.alpha(r) for r in (T, S))
    angle, angle_end = (jnp.arctan(level / config.sigma_data) for level in (sigma, end))
    here = X / alpha[:, None, None, None]  # on the EDM path
    expected = g(edm, here, sigma, end)
    np.testing.assert_allclose(g(SD, X, T, S), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        g(trigflow, here * jnp.cos(angle)[:, None, None, None], angle, angle_end), expected, rtol=1e-4, atol=1e-4
    )
    assert jnp.abs(g(edm, here, sigma, sigma) - expected)[:2].max() > 1e-2


def test_the_jump_on_the_edm_path_is_that_of_ctm():
    t, s = jnp.array([80.0, 2.0, 0.5]), jnp.array([0.002, 1.0, 0.5])
    G = trajectories.flow_map(lambda params, labels: lambda x, t, s: jnp.cos(x), edm)(None, None)
    ratio = (s / t)[:, None, None, None]
    np.testing.assert_allclose(G(X, t, s), ratio * X + (1 - ratio) * jnp.cos(X), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(G(X, t, s)[2], X[2])


def test_a_condition_is_a_channel_of_one_number():
    x = trajectories.beside(X, jnp.eye(3), jnp.array([[0.1], [0.2], [0.3]]))
    assert x.shape == (3, 8, 8, 5)
    np.testing.assert_array_equal(x[..., :1], X)
    for i in range(3):
        np.testing.assert_allclose(x[i, ..., 1:], np.broadcast_to([*np.eye(3)[i], 0.1 * (i + 1)], (8, 8, 4)), rtol=1e-6)


def test_neither_player_trains_the_other():
    judge = trajectories.discriminator(8)
    params = {"discriminator": judge.init(jax.random.key(1), X)["params"]}

    @jax.jit
    def gradients(params, real, fake):
        def player(i):
            return lambda *inputs: trajectories.players(
                trajectories.patches(judge), *inputs, generator=hinge_generator
            )[i].sum()

        return [jax.grad(player(i), (0, 1, 2))(params, real, fake) for i in (0, 1)]

    sizes = [[float(max(map(jnp.max, map(jnp.abs, jax.tree.leaves(part))))) for part in player]
             for player in gradients(params, X, 2 * X)]  # fmt: skip
    (to_judge, to_real, to_fake), (own, from_real, from_fake) = sizes
    assert to_judge == to_real == from_real == from_fake == 0
    assert min(to_fake, own) > 0


def test_each_player_has_its_own_optimizer():
    both = trajectories.optimizer(optax.sgd(1.0), optax.sgd(10.0))
    for params in ({"network": jnp.ones(2), "discriminator": {"a": jnp.ones(3)}}, {"network": jnp.ones(2)}):
        updates, _ = both.update(params, both.init(params))
        np.testing.assert_array_equal(updates["network"], -1)
        for leaf in jax.tree.leaves(updates.get("discriminator")):
            np.testing.assert_array_equal(leaf, -10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("digits_tcd", {"second_time": False}),
        ("digits_tcd", {"second_time": False, "second_order": True}),
        ("digits_ctm", {"distill": False}),
    ],
)
def test_other_forms_of_a_run_take_a_step(name, changes, runs):
    experiment = module(name).build(small(name, teacher_run=str(runs("digits_teacher")), **changes))
    assert (experiment.frozen() is None) == (name == "digits_ctm")
    facts = check(experiment)
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0
    if "second_order" in changes:
        assert {sampler.nfe for sampler in experiment.samplers} == {2, 4, 8, 16}


def test_ctm_without_a_teacher_needs_no_run():
    assert module("digits_ctm").build(small("digits_ctm", distill=False)).initial is None


def test_tcd_is_told_the_end_or_asks_half_way():
    with pytest.raises(ValueError, match="second_order is of a network that is not told s"):
        module("digits_tcd").build(small("digits_tcd", second_order=True))


@pytest.mark.parametrize("second_order", [False, True])
def test_tcds_jumps_without_the_end(second_order):
    config = small("digits_tcd", second_time=False, second_order=second_order)
    model = DiT(patch=4, width=16, depth=1, heads=2, num_classes=10)
    shapes = jax.eval_shape(model.init, jax.random.key(0), X, T, LABELS)["params"]
    params = jax.tree.map(lambda leaf: 0.3 * jnp.ones(leaf.shape, leaf.dtype), shapes)
    got = digits_tcd.flow_map_of(model, config, SD)(params, LABELS)(X, T, S)
    D = digits_students.on_path(model, config, SD)(params, LABELS)
    first, second = conversions.ddim_jump(SD, X, D(X, T), T, S), conversions.second_order_jump(SD, D, X, T, S)
    expected = second if second_order else first
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[2], X[2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_ctm", "digits_pcm"])
def test_a_discriminator_is_trained_beside_the_network(name, runs):
    start = {"adversarial_start": 0} if name == "digits_ctm" else {}
    teacher_run = str(runs("digits_teacher"))
    config = small(name, teacher_run=teacher_run, adversarial_weight=0.5, discriminator_channels=8, **start)
    experiment = module(name).build(config)
    assert set(experiment.initial()) == {"network", "discriminator"}
    facts = check(experiment._replace(initial=lambda: made_up.params(experiment)))
    assert np.isfinite(list(facts.scalars.values())).all()
    assert {"adversarial", "discriminator"} <= facts.scalars.keys()


@pytest.mark.slow
def test_the_discriminator_of_pcm_holds_jumps_against_their_targets(runs, monkeypatch):
    """What is real to it is the goal, a constant, and neither data nor noise; the hinge is PCM's."""
    config = small("digits_pcm", teacher_run=str(runs("digits_teacher")), adversarial_weight=0.5)

    def players(judge, params, real, fake, *, generator):
        assert generator is saturating_hinge_generator
        real, fake = real[..., :1], fake[..., :1]
        return elementwise_pseudo_huber(fake, real, c=config.huber_c), real.sum((1, 2, 3))

    monkeypatch.setattr(digits_pcm, "renoise", lambda path, x_s, z, s, t: x_s)
    monkeypatch.setattr(trajectories, "players", players)
    experiment = digits_pcm.build(config)
    batch = experiment.prepare(jax.random.key(0), jax.tree.map(jnp.asarray, next(experiment.batches(0))))
    context = Context(jnp.zeros((), int), experiment.frozen(), {})

    @jax.jit
    def gradients(params):
        def part(name):
            return lambda params: experiment.objective(params, batch, jax.random.key(1), context)[1][name].sum()

        _, parts = experiment.objective(params, batch, jax.random.key(1), context)
        return parts, {name: jax.grad(part(name))(params) for name in ("adversarial", "discriminator")}

    parts, found = gradients(made_up.params(experiment))
    np.testing.assert_allclose(parts["adversarial"], parts["distance"], rtol=1e-6)
    sizes = {name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(g)) for name, g in found.items()}
    assert sizes["adversarial"] > 0
    assert sizes["discriminator"] == 0


@pytest.mark.slow
def test_the_discriminator_of_ctm_counts_once_its_time_has_come(runs):
    """Before, its parameters stay what they are."""
    gradients = []
    for start in (0, 1):
        config = small("digits_ctm", teacher_run=str(runs("digits_teacher")), adversarial_weight=0.5)
        config.update({"discriminator_channels": 8, "adversarial_start": start})
        experiment = module("digits_ctm").build(config)
        facts = check(experiment._replace(initial=lambda experiment=experiment: made_up.params(experiment)))
        gradients.append(facts.scalars["gradient_norm"])
    assert gradients[0] > gradients[1] > 0
