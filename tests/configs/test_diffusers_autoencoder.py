"""Stable Diffusion's autoencoder as a run: from a folder of diffusers to a student's samples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import data
from configs import diffusers_autoencoder, latents
from models.autoencoder import Autoencoder
from models.pretrained.stable_autoencoder import read_autoencoder
from tests.configs import made_up
from train import Record, fit, restore_average, write_record


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of diffusers."""
    pytest.importorskip("safetensors")
    return made_up.autoencoder_folder(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def run(weights, tmp_path_factory):
    """The workdir of a run of no steps."""
    folder, images = tmp_path_factory.mktemp("run"), made_up.images_file(tmp_path_factory.mktemp("images"))
    config = diffusers_autoencoder.get_config()
    config.update({"weights": str(weights), "path": str(images)})
    write_record(folder, Record("configs/diffusers_autoencoder.py", config.to_dict()))
    finished = fit(diffusers_autoencoder.build(config), folder)
    assert (finished.steps_taken, finished.interrupted) == (0, False)
    return folder


@pytest.mark.slow
def test_its_latents_are_those_of_the_folder_and_are_decoded_by_it(run, weights, tmp_path):
    module, variables = read_autoencoder(weights)
    params, step = restore_average(run, "ema")
    assert step == 0
    jax.tree.map(np.testing.assert_array_equal, params, variables["params"])

    folder = tmp_path / "latents"
    latents.encode(run, folder, batch_size=64)
    space = latents.space(str(folder), str(run), shape=(4, 4, 4), num_classes=made_up.CLASSES)
    assert space.scale == data.Scale((0.0,) * 4, (0.18215,) * 4)
    x = data.to_model_range(jnp.asarray(made_up.images().image[:3]))
    mean, logvar = (np.asarray(moment) for moment in module.apply(variables, x, method="encode"))
    examples: list[Any] = [space.source[i] for i in range(3)]
    for i, example in enumerate(examples):
        np.testing.assert_allclose(example["image"], mean[i], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(example["logvar"], logvar[i], rtol=1e-4, atol=1e-4)
    decoded = space.decode(space.params, data.to_model_scale(jnp.asarray(mean), space.scale))
    expected = np.asarray(module.apply(variables, jnp.asarray(mean), method="decode"))
    np.testing.assert_allclose(decoded, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_edm2s_convention(weights, tmp_path):
    """Images in [0, 1], channels by the numbers of its code, there and back."""
    config = diffusers_autoencoder.get_config("edm2")
    config.update({"weights": str(weights), "path": str(made_up.images_file(tmp_path))})
    write_record(tmp_path / "run", Record("configs/diffusers_autoencoder.py", config.to_dict()))
    fit(diffusers_autoencoder.build(config), tmp_path / "run")
    latents.encode(tmp_path / "run", tmp_path / "latents", batch_size=64)
    space = latents.space(str(tmp_path / "latents"), str(tmp_path / "run"), shape=(4, 4, 4), num_classes=10)

    module, variables = read_autoencoder(weights)
    image = jnp.asarray(made_up.images().image[:3]) / 255.0
    mean, _ = module.apply(variables, image, method="encode")
    z = (mean - jnp.array([5.81, 3.25, 0.12, -2.15])) * 0.5 / jnp.array([4.17, 4.62, 3.71, 3.28])
    example: Any = space.source[1]
    np.testing.assert_allclose(data.to_model_scale(jnp.asarray(example["image"]), space.scale), z[1], atol=1e-4)
    expected = 2 * jnp.asarray(module.apply(variables, mean, method="decode")) - 1
    np.testing.assert_allclose(space.decode(space.params, z), expected, rtol=1e-3, atol=1e-3)


def test_a_convention_is_known_and_whole():
    with pytest.raises(ValueError, match=r"convention is 'sd3', there are stable, edm2"):
        diffusers_autoencoder.get_config("sd3")
    config = diffusers_autoencoder.get_config("edm2")
    config.channel_std = ()
    with pytest.raises(ValueError, match=r"channel_mean=\(5\.81, .*\) and channel_std=\(\) are of other numbers"):
        diffusers_autoencoder.scale_of(config)
    config.channel_mean = ()
    scale = diffusers_autoencoder.scale_of(config)((1.0, 2.0), (3.0, 4.0))
    assert scale == data.standardised((1.0, 2.0), (3.0, 4.0), to=0.5)


def test_without_weights_it_can_be_looked_at_and_not_be_run(tmp_path):
    config = diffusers_autoencoder.get_config()
    config.path = str(made_up.images_file(tmp_path))
    experiment = diffusers_autoencoder.build(config)
    assert diffusers_autoencoder.network(config) == Autoencoder()
    assert experiment.initial is not None
    with pytest.raises(ValueError, match=r"give --config\.weights: a folder of an autoencoder"):
        experiment.initial()
