"""The teacher of the runs that distil Stable Diffusion: what it says of the data, and files that are not it."""

import json
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import stable
from models import read_stable
from tests.configs.made_up import module
from tests.configs.stable_runs import FIXTURE, NAMES, TEXT, T, X, built, captions, config_of, one_resolution
from train import Context, check


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return captions(tmp_path_factory.mktemp("captions"))


@pytest.fixture
def settings():
    return one_resolution()


class Known:
    """Stands in for the U-Net: its output is a known function."""

    def __init__(self, output):
        self.output = output

    def clone(self, **changes):  # noqa: D102
        return self

    def apply(self, variables, x, t, text, s, w):  # noqa: D102
        return self.output(variables["params"], x, text)


@pytest.mark.parametrize("v_prediction", [False, True])
def test_the_guided_teacher_is_the_guided_prediction_of_its_weights(v_prediction):
    config = stable.common()
    config.v_prediction = v_prediction
    model: Any = Known(lambda params, x, text: 0.5 * x + text.mean((1, 2))[:, None, None, None] + params)
    text, empty = jnp.array([1.0, 2.0])[:, None, None] * jnp.ones((2, 3, 6)), np.full((3, 6), 0.25)
    scale = jnp.array([1.0, 8.5])
    out = 0.5 * X + (0.25 + scale * (jnp.array([1.0, 2.0]) - 0.25))[:, None, None, None] + 0.1
    alpha, sigma = (c(T)[:, None, None, None] for c in (stable.PATH.alpha, stable.PATH.sigma))
    expected = alpha * X - sigma * out if v_prediction else (X - sigma * out) / alpha
    # Frozen, or below adapters.
    for params, frozen in (({"network": jnp.nan}, jnp.float32(0.1)), ({"network": jnp.float32(0.1)}, None)):
        context = Context(jnp.zeros((), int), frozen, {})
        D = stable.teacher(config, model, params, context, text, empty, scale=scale)
        np.testing.assert_allclose(D(X, T), expected, rtol=1e-4, atol=1e-4)


def test_v_is_the_prediction_that_gives_the_data_back():
    config = stable.common()
    config.v_prediction = True
    x, z = jax.random.normal(jax.random.key(0), (2, 2, 8, 8, 4))
    alpha, sigma = (c(T)[:, None, None, None] for c in (stable.PATH.alpha, stable.PATH.sigma))
    model: Any = Known(lambda params, x_t, text: alpha * z - sigma * x)
    D = stable.denoiser(config, model, {}, TEXT)
    np.testing.assert_allclose(D(alpha * x + sigma * z, T), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_teacher_a_run_can_be_built_and_says_what_it_lacks(name):
    experiment = module(name).build(module(name).get_config())
    assert experiment.fingerprint["shape"] == [64, 64, 4]
    with pytest.raises(FileNotFoundError, match=r"is not here: give --config\.data=FOLDER, .*empty\.npy"):
        check(experiment)
    with pytest.raises(ValueError, match=r"needs Stable Diffusion's U-Net: .*--config\.teacher=FOLDER"):
        experiment.frozen()


def test_a_teacher_that_is_another_network_is_refused_by_name(folder, settings, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json; it should be `unet` of a pipeline"):
        built("stable_pcm", folder, tmp_path)
    xl = settings | {"addition_embed_type": "text_time", "transformer_layers_per_block": [1, 2, 10]}
    (tmp_path / "config.json").write_text(json.dumps(xl))
    message = rf"the teacher in {tmp_path}: (.|\n)*addition_embed_type='text_time' is not supported"
    with pytest.raises(ValueError, match=message):
        built("stable_pcm", folder, tmp_path)


def test_weights_of_another_network_than_the_settings_say_are_refused_by_name(folder, settings, tmp_path):
    pytest.importorskip("safetensors")
    shutil.copytree(FIXTURE, tmp_path / "unet")
    config = config_of("stable_pcm", folder, tmp_path / "unet")
    stable.initial(config, stable.network(config))
    (tmp_path / "unet" / "config.json").write_text(json.dumps(settings))
    for read in (lambda: stable.initial(config, stable.network(config)), lambda: read_stable(tmp_path / "unet")):
        with pytest.raises(ValueError, match=r"down_blocks\.1\.resnets\.0\.conv1\.weight is not a tensor of this"):
            read()


def test_captions_of_another_text_encoder_are_refused_with_both_widths(tmp_path):
    def save_zeros(**shapes):
        for name, shape in shapes.items():
            np.save(tmp_path / f"{name}.npy", np.zeros(shape, np.float32))

    save_zeros(latents=(4, 8, 8, 4), text=(4, 3, 5), empty=(3, 5))
    with pytest.raises(ValueError, match="4 channels and texts of 5 features, the network takes 4 and 6"):
        built("stable_lcm", tmp_path, FIXTURE)
    save_zeros(latents=(4, 7, 8, 4), text=(4, 3, 6), empty=(3, 6))
    with pytest.raises(ValueError, match="latents of 7 x 8, the network needs multiples of 2"):
        built("stable_lcm", tmp_path, FIXTURE)


def test_what_the_weights_predict_must_be_what_the_run_says(folder, settings, tmp_path):
    unet, scheduler = tmp_path / "unet", tmp_path / "scheduler"
    for made, name, values in (
        (unet, "config", settings),
        (scheduler, "scheduler_config", {"prediction_type": "v_prediction"}),
    ):
        made.mkdir()
        (made / f"{name}.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"prediction_type='v_prediction', this run 'epsilon'; .*v_prediction"):
        built("stable_lcm", folder, unet)
    built("stable_lcm", folder, unet, v_prediction=True)
