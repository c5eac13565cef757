"""A converted checkpoint is sampled, judged, distilled and gone on from as a run of ours is."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import eval as evaluation
import train
from configs import pretrained
from losses import conversions, edm
from models import preconditioning
from models.pretrained import convert, write
from models.pretrained.stable_autoencoder import read_autoencoder
from samplers import grids, heun
from samplers.noise import initial
from tests.configs.converted import folder_of
from tests.configs.made_up import SHAPE, autoencoder_folder
from tests.models.pretrained import made_up as checkpoints
from tests.models.pretrained import written

KEYS, LABELS = jax.random.split(jax.random.key(0), 2), jnp.arange(2)


def draw(folder, number=0):
    experiment = evaluation.load_experiment(folder)
    assert isinstance(experiment, evaluation.run.Experiment)
    params, step = experiment.restore(folder, experiment.judged_average, None)
    assert step == 0
    return experiment, np.asarray(jax.jit(experiment.samplers[number].sample)(params, KEYS, LABELS))


def test_a_diffusion_model_is_sampled_by_heun(tmp_path):
    folder, case, params = folder_of(tmp_path, "ddpmpp", steps=3)
    experiment, images = draw(folder)
    assert (experiment.num_classes, experiment.samplers[0].nfe) == (5, 5)
    D = preconditioning.edm(lambda x, t: case.module.apply({"params": params}, x, t, LABELS), 0.5)
    velocity = conversions.denoiser_to_velocity(edm, D)
    expected = jax.jit(lambda z: heun(velocity, 80 * z, grids.karras(3)))(initial(KEYS, SHAPE))
    np.testing.assert_allclose(images, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["consistency_models", "ctm", "ctm_imagenet64", "guided_diffusion", "sit"])
def test_every_kind_is_sampled(name, tmp_path):
    folder, case, _ = folder_of(tmp_path, name, steps=2)
    _, images = draw(folder)
    assert images.shape == (2, *case.settings.get("shape", SHAPE))
    assert np.isfinite(images).all()


def test_the_second_of_two_steps_starts_where_its_run_says(tmp_path):
    folder, _, _ = folder_of(tmp_path, "consistency_models")
    assert evaluation.load_experiment(folder).samplers[1].name == "consistency 80, 0.821"
    run = json.loads((folder / "run.json").read_text())
    run["config"]["second_sigma"] = 1.38237
    (folder / "run.json").write_text(json.dumps(run))
    assert evaluation.load_experiment(folder).samplers[1].name == "consistency 80, 1.382"


def test_guidance_moves_samples_and_needs_classes(tmp_path):
    folder, _, _ = folder_of(tmp_path, "sit", steps=2)
    _, plain = draw(folder)
    run = json.loads((folder / "run.json").read_text())
    run["config"]["guidance"] = 2.0
    (folder / "run.json").write_text(json.dumps(run))
    experiment, guided = draw(folder)
    assert experiment.samplers[0].nfe == 6
    assert np.abs(guided - plain).max() > 1e-3
    (tmp_path / "other").mkdir()
    other, _, _ = folder_of(tmp_path / "other", "ncsnpp", guidance=2.0)
    with pytest.raises(ValueError, match="needs a class-conditional network"):
        draw(other)


def test_a_weaker_network_guides(tmp_path):
    """By a scale of 1 it changes nothing; by 0 samples are its own."""
    folder, case, params = folder_of(tmp_path, "sit", steps=2)
    other = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    path = written.write_state_dict(tmp_path / "weaker.pt", checkpoints.tensors(case, other))
    write(tmp_path / "weaker", convert(path, **case.given), path)
    weaker = json.loads((tmp_path / "weaker" / "run.json").read_text())
    weaker["config"]["steps"] = 2
    (tmp_path / "weaker" / "run.json").write_text(json.dumps(weaker))
    run = json.loads((folder / "run.json").read_text())
    for scale, expected in ((1.0, draw(folder)), (0.0, draw(tmp_path / "weaker"))):
        run["config"] |= {"weaker_run": str(tmp_path / "weaker"), "autoguidance": scale}
        (folder / "run.json").write_text(json.dumps(run))
        experiment, images = draw(folder)
        assert experiment.samplers[0].nfe == 6
        np.testing.assert_allclose(images, expected[1], rtol=1e-3, atol=1e-3)
    (tmp_path / "other").mkdir()
    pixels, _, _ = folder_of(tmp_path / "other", "ddpmpp")
    run["config"]["weaker_run"] = str(pixels)
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match=r"weaker network in .* has shape"):
        evaluation.load_experiment(folder)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """A folder of diffusers, for latents of half the side of their images."""
    return autoencoder_folder(tmp_path_factory.mktemp("vae"))


def decoder(folder) -> tuple[Any, Any]:
    return read_autoencoder(folder)


def test_latents_are_decoded_where_there_is_an_autoencoder(autoencoder, tmp_path):
    folder, _, _ = folder_of(tmp_path, "sit", steps=2)
    _, z = draw(folder)
    run = json.loads((folder / "run.json").read_text())
    run["config"]["autoencoder"] = str(autoencoder)
    (folder / "run.json").write_text(json.dumps(run))
    _, images = draw(folder)
    assert images.shape == (2, 16, 16, 3)
    network, variables = decoder(autoencoder)
    expected = network.apply(variables, jnp.asarray(z) / 0.18215, method="decode")
    np.testing.assert_allclose(images, expected, rtol=1e-3, atol=1e-3)


def test_edm2s_latents_are_decoded_by_its_own_convention(autoencoder):
    scale, bias = (0.1, 0.2, 0.3, 0.4), (0.5, -0.5, 1.0, 0.0)
    examples = {"scale": scale, "bias": bias, "autoencoder_range": (0.0, 1.0)}
    settings = {"shape": (4, 4, 4), "num_classes": 0, "examples": examples}
    space = pretrained.space(ConfigDict({"settings": settings, "autoencoder": str(autoencoder)}))
    z = jax.random.normal(jax.random.key(0), (1, 4, 4, 4))
    seen = z * jnp.asarray(scale) + jnp.asarray(bias)
    network, variables = decoder(autoencoder)
    in_unit_range = network.apply(variables, z, method="decode")
    np.testing.assert_allclose(space.decode(variables, seen), 2 * in_unit_range - 1, rtol=1e-3, atol=1e-3)


def test_an_autoencoder_of_other_latents_is_refused(autoencoder, tmp_path):
    folder, _, _ = folder_of(tmp_path, "ddpmpp", autoencoder=str(autoencoder))
    with pytest.raises(ValueError, match=r"has latents of 4 channels, this network has examples of \(8, 8, 3\)"):
        evaluation.load_experiment(folder)


def test_a_judge_of_features(monkeypatch, tmp_path):
    """Those that are asked for by name in run.json, against the images there."""
    asked: dict[str, Any] = {}

    def features(names, **options):
        asked.update(names=tuple(names), **options)
        return (evaluation.pixels._replace(name="inception", resize="tf1"),), ()

    monkeypatch.setattr(pretrained.judging, "features", features)
    images = np.random.default_rng(0).integers(0, 256, (200, *SHAPE), np.uint8)
    evaluation.write_samples(tmp_path / "images.npz", images)
    changes = {"images": str(tmp_path / "images.npz"), "features": ["inception"], "feature_weights": "FILE"}
    folder, _, _ = folder_of(tmp_path, "ddpmpp", **changes)
    (row, *_) = evaluation.load_experiment(folder).judge([(images, np.arange(200) % 5)])
    assert asked == {"names": ("inception",), "weights": "FILE"}
    assert (row["metric"], row["reference_n"]) == ("fid_tf1_200", 200)
    assert abs(row["value"]) < 1e-3


def test_only_its_own_weights_are_there(tmp_path):
    folder, _, _ = folder_of(tmp_path, "ddpmpp")
    for average, step in (("ema", None), ("params", 3)):
        with pytest.raises(ValueError, match="has the average params of step 0 alone"):
            train.restore_average(folder, average, step)


def test_a_judge_needs_images(tmp_path):
    folder, _, _ = folder_of(tmp_path, "ddpmpp")
    with pytest.raises(ValueError, match=r"give `images` in its run\.json"):
        evaluation.load_experiment(folder).judge(iter(()))
    images = np.random.default_rng(0).integers(0, 256, (200, *SHAPE), np.uint8)
    np.savez(tmp_path / "images.npz", image=images, label=np.arange(200) % 5)
    (tmp_path / "other").mkdir()
    folder, _, _ = folder_of(tmp_path / "other", "ddpmpp", images=str(tmp_path / "images.npz"))
    (row, *_) = evaluation.load_experiment(folder).judge([(images, np.arange(200) % 5)])
    assert row["metric"].startswith("fd_pixels")
    assert abs(row["value"]) < 1e-3
