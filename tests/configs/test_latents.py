"""Latents from the run of an autoencoder to a student of them, and everything that is refused between the two."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import data
import eval as evaluation
from configs import judges, latents
from losses import denoising
from tests.configs import made_up
from train import Experiment, Sampler, check, restore_average

pytestmark = pytest.mark.usefixtures("small_data")

SHAPE = (8, 8, 4)
RUN = "cifar10_autoencoder"


@pytest.fixture(scope="module")
def encoded(runs, tmp_path_factory):
    """The run of an autoencoder and the folder of its latents."""
    with pytest.MonkeyPatch.context() as patch:
        made_up_data(patch)
        run = runs(RUN)
        folder = tmp_path_factory.mktemp("encoded") / "latents"
        latents.encode(run, folder, batch_size=48)
    return run, folder


def made_up_data(patch):
    patch.setattr(data, "tfds_source", lambda name, **options: made_up.images())
    patch.setattr("configs.cifar10.SHAPE", made_up.SHAPE)


def space(run, folder, *, shape=SHAPE, num_classes=made_up.CLASSES):
    return latents.space(str(folder), str(run), shape=shape, num_classes=num_classes)


# ---- Encoding --------------------------------------------------------------------------------------------------------


def test_the_record_says_which_encoder_it_was(encoded):
    run, folder = encoded
    record = json.loads((folder / "record.json").read_text())
    params, step = restore_average(run, "ema")
    assert record["encoder"]["sha256"] == latents.sha256_of(params["autoencoder"]["encoder"])
    assert record["encoder"]["config"] == json.loads((run / "run.json").read_text())["config"]
    expected = {"config_file": f"{RUN}.py", "average": "ema", "step": step}
    assert {key: record["encoder"][key] for key in expected} == expected
    assert record["images"]["name"] == "made_up"
    assert (record["count"], record["shape"]) == (64, list(SHAPE))
    np.testing.assert_allclose(np.array(record["std"]) * record["factor"], 0.5)


def test_latents_are_those_of_the_averaged_encoder(encoded):
    run, folder = encoded
    params, _ = restore_average(run, "ema")
    images = made_up.images().image[:3]
    mean, logvar = jax.jit(latents.read(run).encode)(params, data.to_model_range(jnp.asarray(images)))
    batch = data.latents(folder).take(np.arange(3))
    np.testing.assert_allclose(batch["image"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batch["logvar"], logvar, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(batch["label"], [0, 1, 2])


def test_a_hash_is_of_names_shapes_types_and_bits():
    tree = {"a": jnp.zeros((2, 3)), "b": jnp.ones(2)}
    others = (
        {"a": jnp.zeros((3, 2)), "b": jnp.ones(2)},
        {"a": jnp.zeros((2, 3)), "c": jnp.ones(2)},
        {"a": jnp.zeros((2, 3)), "b": jnp.ones(2, jnp.bfloat16)},
        {"a": -jnp.zeros((2, 3)), "b": jnp.ones(2)},
    )
    assert len({latents.sha256_of(one) for one in (tree, *others)}) == 5
    assert latents.sha256_of(jax.tree.map(np.asarray, tree)) == latents.sha256_of(tree)


# ---- Students --------------------------------------------------------------------------------------------------------


def student(place):
    """A run of one number."""

    def objective(params, batch, key, context):
        assert batch["image"].shape[1:] == SHAPE
        return denoising(lambda x, t: params["gain"] * x, batch["image"], key)

    def sample(params, keys, labels):
        return jax.vmap(lambda key: params["gain"] * jax.random.normal(key, SHAPE))(keys)

    return Experiment(
        init=lambda key: {"gain": jnp.ones(())},
        objective=objective,
        optimizer=optax.sgd(0.1),
        averages={},
        samplers=latents.decoded((Sampler("noise", 1, sample),), place),
        judge=lambda batches: judges.pixel_judge(place.images())(batches),
        judged_average="params",
        judged_samples=200,
        steps=1,
        **latents.latent_data(place, seed=0, batch_size=8),
    )


def test_a_student_trains_on_scaled_draws_of_the_posterior(encoded):
    place = space(*encoded)
    experiment = student(place)
    assert experiment.fingerprint["shape"] == list(SHAPE)
    assert experiment.fingerprint["name"].startswith("made_up in latents of ")
    assert experiment.num_classes == made_up.CLASSES
    batch = next(experiment.batches(0))
    prepared = experiment.prepare(jax.random.key(3), jax.tree.map(jnp.asarray, batch))
    scale = place.scale
    noise = jax.random.normal(jax.random.key(3), batch["image"].shape)
    z = batch["image"] + np.exp(batch["logvar"] / 2) * noise
    np.testing.assert_allclose(prepared["image"], (z - np.array(scale.shift)) * np.array(scale.factor), rtol=1e-4)
    assert set(prepared) == {"image", "label"}
    assert np.isfinite(check(experiment).scalars["loss"])


def test_samples_are_decoded_and_judged_in_pixels(encoded):
    place = space(*encoded)
    (sampler,) = student(place).samplers
    assert (sampler.name, sampler.nfe) == ("noise", 1)
    params = {"gain": jnp.float32(0.5)}
    batches = list(evaluation.draw(sampler, params, n=200, seed=0, num_classes=10, batch_size=200))
    assert batches[0][0].shape == (200, *made_up.SHAPE)

    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(2))
    z = jnp.stack([0.5 * jax.random.normal(key, SHAPE) for key in keys])
    image = latents.read(encoded[0]).decode(
        place.params, z / np.array(place.scale.factor) + np.array(place.scale.shift)
    )
    np.testing.assert_allclose(batches[0][0][:2], evaluation.to_uint8(image), atol=1)

    rows = {row["metric"]: row for row in student(place).judge(batches)}
    assert rows["fd_pixels_200"]["value"] > 0
    assert rows["fd_pixels_200"]["reference"] == "made_up[:64]"


def test_without_latents_a_run_can_be_built_and_says_what_it_lacks():
    experiment = student(space("", ""))
    assert experiment.fingerprint["length"] == 0
    with pytest.raises(FileNotFoundError, match=r"latents is not here: .*--mode=encode.*--config\.latents=FOLDER"):
        check(experiment)
    with pytest.raises(ValueError, match=r"needs latents: .*--config\.autoencoder_run=RUN"):
        jax.eval_shape(experiment.samplers[0].sample, {"gain": 1.0}, jax.random.split(jax.random.key(0), 2), None)
    with pytest.raises(ValueError, match="needs latents"):
        experiment.judge([])


# ---- Refused ---------------------------------------------------------------------------------------------------------


def test_latents_of_another_encoder_are_refused_with_both(encoded, runs):
    _, folder = encoded
    other = runs(RUN, channels=12)
    with pytest.raises(
        ValueError, match=r"encoder: \w{12} \(config_file .*step 1\) there, \w{12} \(.*\) here"
    ) as error:
        space(other, folder)
    there, here = (part.split()[-1] for part in str(error.value).split(" (config_file")[:2])
    assert there != here


def test_latents_of_another_scale_shape_or_number_of_classes_are_refused_with_both(encoded, runs):
    run, folder = encoded
    with pytest.raises(ValueError, match=r"factor of each channel: .* there, .* here"):
        space(runs(RUN, latent_std=1.0), folder)
    with pytest.raises(ValueError, match=r"shape: \(8, 8, 4\) there, \(4, 4, 4\) here"):
        space(run, folder, shape=(4, 4, 4))
    with pytest.raises(ValueError, match="have 10 classes, this run needs 0"):
        space(run, folder, num_classes=0)


def test_latents_and_autoencoder_go_together(encoded):
    run, folder = encoded
    for pair in ((run, ""), ("", folder)):
        with pytest.raises(ValueError, match=r"go together: .*--config\.latents=FOLDER"):
            space(*pair)


def test_a_run_of_something_else_is_refused(encoded, runs, tmp_path):
    other = runs("cifar10_edm")
    for call in (lambda: space(other, encoded[1]), lambda: latents.encode(other, tmp_path / "new")):
        with pytest.raises(ValueError, match=r"is of cifar10_edm\.py, which does not train an autoencoder"):
            call()


def test_a_folder_of_another_run_is_left_alone(encoded, runs):
    with pytest.raises(ValueError, match=r"encoder\.config\.latent_std: 0\.5 there, 1\.0 here"):
        latents.encode(runs(RUN, latent_std=1.0), encoded[1], batch_size=48)
