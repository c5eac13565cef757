import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import data
from configs import latents, mnist_autoencoder
from tests.configs import made_up
from tests.configs.made_up import small
from train import check, count_parameters

HALF = latents.Autoencoder(
    encode=lambda params, x: (x, jnp.zeros_like(x)),
    decode=lambda params, z: params * z,
    encoder=lambda params: None,
    images=made_up.images,
    average="ema",
    scale_of=data.standardised,
)


@pytest.mark.usefixtures("small_data")
def test_images_get_a_black_border():
    source = mnist_autoencoder.source(mnist_autoencoder.get_config())
    assert source.shape == (12, 12, 3)
    np.testing.assert_array_equal(source.image[:, 2:-2, 2:-2], made_up.images().image)
    assert source.image.sum() == made_up.images().image.sum()
    assert source.name == "made_up, border 2"


def test_errors_of_held_out_images_are_measured_and_drawn(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (35, 8, 8, 1), np.uint8)
    periodic = mnist_autoencoder.reconstructions(HALF, lambda: images, every=5, batch_size=30)
    x = images / 127.5 - 1
    scalars = periodic.run(tmp_path, 20, {"params": None, "ema": jnp.float32(0.5)})
    mse = np.mean((x / 2) ** 2)
    expected = {
        "held_out_mse": mse,
        "held_out_psnr": 10 * np.log10(2**2 / mse),
        "held_out_kl": np.sum(x**2) / 2 / len(x),
    }
    assert scalars == pytest.approx(expected, rel=1e-4)
    with Image.open(tmp_path / "grids" / "0000020.png") as picture:
        pixels = np.asarray(picture)[..., 0]
    # The first image and, below it, what was made of it, each pixel enlarged to 8.
    np.testing.assert_array_equal(pixels[2:66:8, 2:66:8][:8, :8], images[0, ..., 0])


@pytest.mark.slow
@pytest.mark.usefixtures("small_data")
def test_a_discriminator_is_trained_beside_it_once_its_time_has_come():
    config = small("mnist_autoencoder", adversarial_weight=0.5, adversarial_start=1)
    experiment = mnist_autoencoder.experiment(config, made_up.images(), made_up.images)
    assert set(jax.eval_shape(lambda: experiment.init(jax.random.key(0)))) == {"autoencoder", "discriminator"}
    facts = check(experiment._replace(initial=lambda: made_up.params(experiment)))
    assert facts.scalars["adversarial"] == facts.scalars["discriminator"] == 0  # at step 0
    assert facts.scalars["gradient_norm"] > 0


@pytest.mark.usefixtures("small_data")
def test_a_reconstruction_is_of_the_held_out_image_that_its_key_draws():
    config = small("mnist_autoencoder")
    experiment = mnist_autoencoder.experiment(config, made_up.images(), made_up.images)
    (sampler,) = experiment.samplers
    params = made_up.params(experiment)
    keys = jax.random.split(jax.random.key(1), 3)
    images = jax.jit(sampler.sample)(params, keys, jnp.zeros(3, int))
    rows = [int(jax.random.randint(key, (), 0, 64)) for key in keys]
    model = mnist_autoencoder.autoencoder_of(config, made_up.images, channels=3)
    x = data.to_model_range(jnp.asarray(made_up.images().image[np.array(rows)]))
    expected = jax.jit(lambda params, x: model.decode(params, model.encode(params, x)[0]))(params, x)
    np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-4)


def test_the_number_of_parameters():
    images = data.ArraySource("black", np.zeros((1, 32, 32, 1), np.uint8))
    experiment = mnist_autoencoder.experiment(mnist_autoencoder.get_config(), images, lambda: images)
    assert count_parameters(experiment) == 164_845
