"""The official networks with random weights, in the files that they write, and what they compute in float64."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.log_variance import EDM2LogVariance
from models.pretrained import FAMILIES, Record, calls, convert, export, read, state_dict
from models.pretrained.edm2 import log_variance

FIXTURES = Path(__file__).parents[4] / "shared" / "fixtures"
pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the published networks' outputs are not here")

SNAPSHOT, SNAPSHOT2 = "network-snapshot-000456.pkl", "network-snapshot-0002345-0.050.pkl"
# Large arguments of sine and cosine: what float32 can do is less there.
EDM = {
    f"edm_ddpmpp_uncond.{SNAPSHOT}": 1e-5,
    f"edm_ddpmpp_cond_augment.{SNAPSHOT}": 1e-5,
    f"edm_ncsnpp_uncond.{SNAPSHOT}": 1e-4,
    f"edm_ncsnpp_cond_ve.{SNAPSHOT}": 1e-4,
    f"edm_ddpmpp_cond_vp.{SNAPSHOT}": 1e-4,
    f"edm_songunet_iddpm.{SNAPSHOT}": 1e-4,
    f"edm_adm_cond.{SNAPSHOT}": 1e-5,
    f"edm_adm_cond_attention.{SNAPSHOT}": 1e-5,
    "ect_ddpmpp_cond.network-snapshot-latest.pkl": 1e-5,
    "ect_ddpmpp_cond.training-state-latest.pt": 1e-5,
    "ect_ddpmpp_cond.state_dict.pt": 1e-5,
    f"edm2_cond_latent.{SNAPSHOT2}": 1e-5,
    f"edm2_uncond_rgb.{SNAPSHOT2}": 1e-5,
}
OTHERS = {
    "openai_cm_cond.pt": {"resolution": 8, "channels_per_head": 8},
    "guided_diffusion_cond_learnsigma.pt": {"resolution": 8, "channels_per_head": 16, "schedule": "cosine"},
    "sit_cond_nosigma.pt": {"program": "sit", "heads": 3},
    "sit_patch4_learnsigma.pt": {"program": "dit", "heads": 4},
    "sit_patch4_learnsigma.training-0100000.pt": {"heads": 4},
    "ctm_cifar_cond.pt": {},
}


def given(file):
    return OTHERS.get(file, {"preconditioning": "ecm"} if file.endswith("state_dict.pt") else {})


def arrays_of(file):
    with np.load(FIXTURES / f"{file.split('.')[0]}.npz") as arrays:
        return dict(arrays)


def images(array):
    return jnp.asarray(array.transpose(0, 2, 3, 1), jnp.float32)


def error(value, truth):
    """Largest error of an image over the largest number in it."""
    truth = truth.transpose(0, 2, 3, 1)
    return np.max(np.abs(value - truth).max((1, 2, 3)) / np.abs(truth).max((1, 2, 3)))


def swapped_heads(params, heads):
    """The same parameters with two heads of one attention the wrong way round, or its q and k where it has one head."""

    def at(tree):
        for name, child in tree.items():
            if name == "qkv":
                kernel = child["kernel"]
                split = kernel.reshape(*kernel.shape[:-1], 3, heads, -1)
                order = [1, 0, *range(2, heads)]
                mixed = split[..., order, :] if heads > 1 else split[..., jnp.array([1, 2, 0]), :, :]
                return {**tree, name: {**child, "kernel": mixed.reshape(kernel.shape)}}
            if isinstance(child, dict) and (changed := at(child)) is not child:
                return {**tree, name: changed}
        return tree

    changed = at(params)
    assert changed is not params
    return changed


@pytest.mark.parametrize("file", EDM)
def test_diffusion_models_of_nvidia(file):
    arrays, converted = arrays_of(file), convert(FIXTURES / file, **given(file))
    module, call = converted.module, converted.settings["call"]
    x, sigma = images(arrays["x"]), jnp.asarray(arrays["sigma"])
    ids = jnp.asarray(arrays["class_ids"], jnp.int32) if "class_ids" in arrays else None
    augment = jnp.asarray(arrays["augment_labels"]) if "augment_labels" in arrays else None
    params = converted.params["network"] if converted.family == "edm2" else converted.params

    # The denoiser, and beside it the network's bare output, whose errors the skip hides at small noise.
    @jax.jit
    def outputs(params, labels, augment):
        raw = []

        def F(x, t):
            told = {} if augment is None else {"augment": augment}
            raw.append(module.apply({"params": params}, x, t, labels, **told))
            return raw[-1]

        called = calls.consistency_function if call["kind"] == "consistency" else calls.denoiser
        return called(call, F)(x, sigma), *raw

    denoised, raw = outputs(params, ids, augment)
    # A step of up to 999, in float32, is right to 1e-4.
    assert error(denoised, arrays["denoised_f64"]) < (2e-5 if call["kind"] == "vp" else 1e-5)
    assert error(raw, arrays["raw_f64"]) < EDM[file]
    if ids is not None:
        null = jnp.full_like(ids, module.num_classes)
        assert error(outputs(params, null, augment)[1], arrays["raw_nolabel_f64"]) < EDM[file]
    if augment is not None:
        absent = jnp.zeros_like(augment)
        assert error(outputs(params, ids, absent)[1], arrays["raw_noaugment_f64"]) < EDM[file]
    if file.startswith("ect"):
        np.testing.assert_array_equal(denoised[0], x[0])  # its noise level is sigma_min
        assert call["sigma_min"] == 0.003
    if converted.family == "edm2":
        weight: EDM2LogVariance = log_variance(converted.settings)
        w: Any = weight.apply(
            {"params": converted.params["log_variance"]}, jnp.asarray(arrays["c_noise_f64"], jnp.float32)
        )
        np.testing.assert_allclose(w, arrays["logvar_f64"].ravel(), rtol=1e-5, atol=1e-5)
        assert error(denoised, arrays["denoised_fp16weights_aspublished_f32"]) < 5e-4
    if file.startswith(("edm_ddpmpp_uncond", "edm_ncsnpp_uncond")):
        assert error(outputs(swapped_heads(params, 1), ids, augment)[1], arrays["raw_f64"]) > 1e-3


def test_network_of_consistency_models():
    file = "openai_cm_cond.pt"
    arrays, converted = arrays_of(file), convert(FIXTURES / file, **given(file))
    labels, sigma = jnp.asarray(arrays["class_ids"], jnp.int32), jnp.asarray(arrays["sigma"])
    F = jax.jit(lambda params, x, t: converted.module.apply({"params": params}, x, t, labels))
    # Its own times are 1000 times what the module takes, which is EDM's.
    t = jnp.asarray(arrays["timesteps"]) / 1000
    assert error(F(converted.params, images(arrays["x"]), t), arrays["out_f64"]) < 3e-5
    x = images(arrays["x_noisy_f64"])
    f = calls.consistency_function(converted.settings["call"], partial(F, converted.params))
    assert error(f(x, sigma), arrays["denoised_distill_f64"]) < 3e-5
    diffusion = convert(FIXTURES / file, **given(file), consistency=False)
    D = calls.denoiser(diffusion.settings["call"], partial(F, converted.params))
    assert error(D(x, sigma), arrays["denoised_edm_f64"]) < 3e-5
    wrong = swapped_heads(converted.params, 4)
    assert error(F(wrong, images(arrays["x"]), t), arrays["out_f64"]) > 1e-3


def test_guided_diffusion_in_both_orders_of_attention():
    file = "guided_diffusion_cond_learnsigma.pt"
    arrays = arrays_of(file)
    labels, t = jnp.asarray(arrays["class_ids"], jnp.int32), jnp.asarray(arrays["timesteps"])
    legacy, new = (convert(FIXTURES / file, **given(file), new_attention_order=new) for new in (False, True))
    F = jax.jit(lambda params: legacy.module.apply({"params": params}, images(arrays["x"]), t, labels))
    for converted, truth, other in (
        (legacy, "out_f64", "out_new_attention_order_f64"),
        (new, "out_new_attention_order_f64", "out_f64"),
    ):
        out = F(converted.params)
        assert error(out, arrays[truth]) < 3e-5
        assert error(out, arrays[other]) > 1e-3


@pytest.mark.parametrize("file", [file for file in OTHERS if file.startswith("sit")])
def test_transformers(file):
    arrays, converted = arrays_of(file), convert(FIXTURES / file, **given(file))
    x, y = images(arrays["x"]), jnp.asarray(arrays["y"], jnp.int32)
    module: Any = converted.module
    F = jax.jit(lambda params, x, t, y: module.apply({"params": params}, x, t, y)[..., :4])
    t, steps = (jnp.asarray(arrays[name], jnp.float32) for name in ("t", "t_integer"))
    assert error(F(converted.params, x, t, y), arrays["out_f64"]) < 1e-5
    assert error(F(converted.params, x, steps, y), arrays["out_integer_t_f64"]) < 1e-4
    assert error(F(_swapped_in_stack(converted.params, module.heads), x, t, y), arrays["out_f64"]) > 1e-3

    # Guidance of two items by the same two without a class, in three channels of four.
    half = len(arrays["cfg_y"]) // 2
    x, t, y = images(arrays["cfg_x"])[:half], jnp.asarray(arrays["cfg_t"], jnp.float32)[:half], arrays["cfg_y"]
    with_class, without = (F(converted.params, x, t, jnp.asarray(part, jnp.int32)) for part in (y[:half], y[half:]))
    guided = without + float(arrays["cfg_scale"]) * (with_class - without)
    expected = jnp.concatenate([guided[..., :3], with_class[..., 3:]], axis=-1)
    assert error(expected, arrays["cfg_out_f64"][:half, :4]) < 1e-5


def _swapped_in_stack(params, heads):
    attention = params["blocks"]["self_attention"]
    kernel = attention["qkv"]["kernel"]
    split = kernel.reshape(*kernel.shape[:-1], 3, heads, -1)[..., jnp.array([1, 0, *range(2, heads)]), :]
    qkv = {**attention["qkv"], "kernel": split.reshape(kernel.shape)}
    return {**params, "blocks": {**params["blocks"], "self_attention": {**attention, "qkv": qkv}}}


def test_the_average_is_taken_and_not_the_raw_weights():
    training = read(FIXTURES / "sit_patch4_learnsigma.training-0100000.pt")
    converted = convert(FIXTURES / "sit_patch4_learnsigma.training-0100000.pt", heads=4)
    np.testing.assert_array_equal(converted.params["final"]["bias"], training["ema"]["final_layer.linear.bias"])
    assert np.abs(converted.params["final"]["bias"] - training["model"]["final_layer.linear.bias"]).max() > 1e-3


def test_trajectory_model():
    file = "ctm_cifar_cond.pt"
    arrays, converted = arrays_of(file), convert(FIXTURES / file)
    labels = jnp.asarray(arrays["class_ids"], jnp.int32)
    F = jax.jit(lambda params, x, t, s: converted.module.apply({"params": params}, x, t, labels, s))
    scaled = [jnp.asarray(arrays[name]) / 1000 for name in ("rescaled_t", "rescaled_s")]
    assert error(F(converted.params, images(arrays["x_scaled"]), *scaled), arrays["raw_g_f64"]) < 1e-5
    x, t, s = images(arrays["x_noisy_f64"]), *(jnp.asarray(arrays[name], jnp.float32) for name in ("t", "s"))
    g = calls.trajectory(converted.settings["call"], partial(F, converted.params))(x, t, s)
    ratio = (s / t)[:, None, None, None]
    assert error(g, arrays["denoised_outer_euler_inner_edm_f64"]) < 1e-5
    assert error(ratio * x + (1 - ratio) * g, arrays["G_outer_euler_inner_edm_f64"]) < 1e-5
    # The two times the wrong way round are seen.
    assert error(F(converted.params, images(arrays["x_scaled"]), *scaled[::-1]), arrays["raw_g_f64"]) > 1e-3


@pytest.mark.parametrize("file", [*EDM, *OTHERS])
def test_all_tensors_go_back_to_where_they_came_from(file, tmp_path):
    content, converted = read(FIXTURES / file), convert(FIXTURES / file, **given(file))
    content = content.get("ema", content.get("net", content))
    tensors: Any = state_dict(content) if isinstance(content, Record) else content
    export(converted, tmp_path / "back.safetensors")
    back: Any = read(tmp_path / "back.safetensors")
    assert back.keys() == tensors.keys()
    constants = FAMILIES[converted.family].constants(converted.settings)
    for name, array in tensors.items():
        if name in constants:
            np.testing.assert_allclose(back[name], array, rtol=2e-6, atol=1e-7)
        else:
            np.testing.assert_array_equal(back[name], array.astype(np.float32))


def test_examples_of_edm2():
    latent = convert(FIXTURES / f"edm2_cond_latent.{SNAPSHOT2}").settings["examples"]
    assert latent["autoencoder"] == "stabilityai/sd-vae-ft-mse"
    np.testing.assert_allclose(latent["scale"], 0.5 / np.array([4.17, 4.62, 3.71, 3.28]), rtol=1e-5)
    images = convert(FIXTURES / f"edm2_uncond_rgb.{SNAPSHOT2}").settings["examples"]
    assert images == {"encoder": "StandardRGBEncoder"}


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match=r"sit_missing_key\.pt: .*\n.*blocks\.0\.adaLN_modulation\.1\.bias is missing"):
        convert(FIXTURES / "negative" / "sit_missing_key.pt", heads=4, program="sit")
