import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import softmax_attention
from models.autoencoder import Autoencoder

FIXTURES = Path(__file__).parents[3] / "shared" / "fixtures"
published = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the published networks' outputs are not here")

TINY = Autoencoder(channels=4, multipliers=(1, 2), blocks=1, latent_channels=2, image_channels=1, groups=2)
X = jax.random.uniform(jax.random.key(0), (2, 6, 4, 1), minval=-1)


def count(module, shape):
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


# ---- Stable Diffusion's ----------------------------------------------------------------------------------------------


def test_the_defaults_have_as_many_parameters_as_stable_diffusions():
    assert count(Autoencoder(), (1, 8, 8, 3)) == 83_653_863


def read_safetensors(path):
    """A length, a header of JSON, and the numbers."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, entry in json.loads(raw[8:start]).items():
        if name != "__metadata__":
            assert entry["dtype"] == "F32"
            first, last = (start + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(raw[first:last], "<f4").reshape(entry["shape"])
    return tensors


def params_of(tensors, levels):
    """Parameters of `Autoencoder` from the tensors of the published one: names, axes, and q, k and v side by side."""
    params: dict = {}

    def put(place, kind, tensor):
        layer = params
        for key in place:
            layer = layer.setdefault(key, {})
        layer[kind] = tensor

    def place_of(part, rest):
        """Where a layer of the encoder or decoder lies, by what comes before `weight`."""
        match rest:
            case [("down_blocks" | "up_blocks") as side, level, "resnets", block, *layer]:
                number = int(level) if side == "down_blocks" else levels - 1 - int(level)
                return [part, f"level{number}_block{block}", *layer]
            case ["down_blocks", level, "downsamplers", _, "conv"]:
                return [part, f"down{int(level) + 1}"]
            case ["up_blocks", level, "upsamplers", _, "conv"]:
                return [part, f"up{levels - 1 - int(level)}"]
            case ["mid_block", "resnets", block, *layer]:
                return [part, "middle", f"block{block}", *layer]
            case ["mid_block", "attentions", _, *layer]:
                return [part, "middle", *layer]
            case [layer]:
                return [part, {"conv_norm_out": "norm_out"}.get(layer, layer)]
        raise AssertionError(rest)

    renamed = {"norm1": "norm0", "norm2": "norm1", "conv1": "conv0", "conv2": "conv1", "conv_shortcut": "skip"}
    renamed |= {"group_norm": "norm", "query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out"}
    for name, tensor in tensors.items():
        part, *rest, kind = name.replace("to_out.0", "to_out").split(".")
        if part in ("quant_conv", "post_quant_conv"):
            place = ["encoder", "moments"] if part == "quant_conv" else ["decoder", "latents"]
        else:
            place = place_of(part, rest)
        place = [*place[:-1], renamed.get(place[-1], place[-1])]
        if kind == "weight":
            kind = "scale" if tensor.ndim == 1 else "kernel"
            tensor = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
        put(place, kind, tensor)

    for part in ("encoder", "decoder"):
        middle = params[part]["middle"]
        q, k, v, out = (middle.pop(f"to_{name}") for name in ("q", "k", "v", "out"))
        qkv = {kind: np.concatenate([q[kind], k[kind], v[kind]], axis=-1) for kind in q}
        middle["self_attention"] = {"qkv": qkv, "proj": out}
    return {"params": params}


def error(found, truth):
    axes = tuple(range(1, truth.ndim))
    return np.max(np.abs(found - truth).max(axis=axes) / np.abs(truth).max(axis=axes))


@published
@pytest.mark.parametrize("name", ["sd_vae_tiny", "sd_vae_tiny_oldnames"])
def test_the_published_network_computes_the_same(name, quick_jit):
    settings = json.loads((FIXTURES / name / "config.json").read_text())
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files if file[key].ndim == 4}
    arrays = {key: np.moveaxis(array, 1, -1) for key, array in arrays.items()}
    widths = settings["block_out_channels"]
    module = Autoencoder(
        channels=widths[0],
        multipliers=tuple(width // widths[0] for width in widths),
        blocks=settings["layers_per_block"],
        latent_channels=settings["latent_channels"],
        groups=settings["norm_num_groups"],
    )
    variables = params_of(read_safetensors(FIXTURES / name / "diffusion_pytorch_model.safetensors"), levels=len(widths))
    encode, decode = (quick_jit(partial(module.apply, method=method)) for method in ("encode", "decode"))
    mean, logvar = encode(variables, arrays["images"])
    assert error(mean, arrays["mean_f64"]) < 1e-5
    assert error(logvar, arrays["logvar_f64"]) < 1e-5
    assert error(decode(variables, arrays["latents"]), arrays["decoded_f64"]) < 1e-5
    if "images_nonsquare" in arrays:
        assert error(encode(variables, arrays["images_nonsquare"])[0], arrays["mean_nonsquare_f64"]) < 1e-5


# ---- Our own ---------------------------------------------------------------------------------------------------------


def test_latents_are_smaller_by_the_resolutions_and_images_come_back(randomized, quick_jit):
    variables = randomized(TINY, X)
    mean, logvar = quick_jit(partial(TINY.apply, method="encode"))(variables, X)
    assert mean.shape == logvar.shape == (2, 3, 2, 2)
    decoded = quick_jit(partial(TINY.apply, method="decode"))(variables, mean)
    assert decoded.shape == X.shape
    np.testing.assert_allclose(quick_jit(TINY.apply)(variables, X), decoded, rtol=1e-4, atol=1e-4)


def test_encoding_needs_no_decoder_and_decoding_no_encoder(randomized):
    params = randomized(TINY, X)["params"]
    encode, decode = (partial(jax.eval_shape, partial(TINY.apply, method=method)) for method in ("encode", "decode"))
    mean, _ = encode({"params": {"encoder": params["encoder"]}}, X)
    assert decode({"params": {"decoder": params["decoder"]}}, mean).shape == X.shape


def test_log_variances_are_cut_off(randomized, quick_jit):
    params = randomized(TINY, X)["params"]
    params["encoder"]["moments"]["bias"] = jnp.array([0.0, 0.0, 1e3, -1e3])
    _, logvar = quick_jit(partial(TINY.apply, method="encode"))({"params": params}, X)
    np.testing.assert_array_equal(logvar[..., 0], 20)
    np.testing.assert_array_equal(logvar[..., 1], -30)


def test_the_body_is_in_half_precision_and_the_moments_are_not(randomized, quick_jit):
    variables = randomized(TINY, X)
    half = TINY.clone(dtype=jnp.bfloat16)
    exact, rounded = (quick_jit(partial(module.apply, method="encode"))(variables, X)[0] for module in (TINY, half))
    assert rounded.dtype == jnp.float32
    size = float(jnp.abs(exact).max())
    assert 1e-4 * size < float(jnp.abs(rounded - exact).max()) < 0.05 * size


def test_attention_is_the_one_that_was_passed_or_none(randomized):
    called = []

    def attention(q, k, v):
        called.append(q.shape)
        return softmax_attention(q, k, v)

    module = TINY.clone(attention=attention)
    jax.eval_shape(module.apply, randomized(TINY, X), X)
    assert called == [(2, 6, 1, 8)] * 2  # all pixels of a latent, one head
    # A norm, queries, keys and values, and the projection, twice.
    assert count(TINY, X.shape) - count(TINY.clone(attention=None), X.shape) == 2 * (16 + 3 * 72 + 72)


@pytest.mark.parametrize(
    ("method", "shape", "message"),
    [
        ("encode", (1, 6, 5, 1), "6x5 pixels is not divisible by 2"),
        ("encode", (1, 6, 4, 3), "images of 1 channels, got 3"),
        ("decode", (1, 3, 2, 4), "latents of 2 channels, got 4"),
    ],
)
def test_impossible_inputs_are_refused(method, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(TINY.init, method=method), jax.random.key(0), jnp.zeros(shape))
