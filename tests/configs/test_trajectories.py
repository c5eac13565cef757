import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits_students, trajectories
from losses import edm, paths, scaled, trig
from losses.adversarial import hinge_generator
from models import DiT
from tests.configs import made_up
from tests.configs.made_up import module, small
from train import check

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
            return lambda *inputs: trajectories.players(judge, *inputs, generator=hinge_generator)[i].sum()

        return [jax.grad(player(i), (0, 1, 2))(params, real, fake) for i in (0, 1)]

    sizes = [[float(max(map(jnp.max, map(jnp.abs, jax.tree.leaves(part))))) for part in player]
             for player in gradients(params, X, 2 * X)]  # fmt: skip
    (to_judge, to_real, to_fake), (own, from_real, from_fake) = sizes
    assert to_judge == to_real == from_real == from_fake == 0
    assert min(to_fake, own) > 0


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compile")
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
@pytest.mark.usefixtures("quick_compile")
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
