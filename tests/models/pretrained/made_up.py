"""Tiny networks of every family with random parameters, and their checkpoints as the other programs write them."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from models import DiT, SongUNet, adm, edm2
from models.embeddings import edm_positional, fourier
from models.pretrained import FAMILIES, openai
from models.pretrained.openai import TIME_SCALE, scaled_sinusoids
from models.pretrained.tensors import shapes_of, tensors_of
from models.unet_blocks import group_norm
from tests.models.pretrained import written

UNET: dict[str, Any] = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,)}
SHAPE = (8, 8, 3)


class Case(NamedTuple):
    """A network, and what `convert` is to say of it.

    Attributes:
        family: by its name.
        module: with everything that is in the checkpoint.
        settings: that decide the names of tensors.
        given: arguments of `convert`.
        beside: further modules whose parameters lie beside the network's, by name.
    """

    family: str
    module: nn.Module
    settings: dict[str, Any]
    given: dict[str, Any]
    beside: dict[str, nn.Module] = {}  # noqa: RUF012  # never changed


def song(frequencies=None, second_branch=False, num_classes=0, **call) -> Case:
    embedding = (
        partial(edm_positional, features=8) if frequencies is None else partial(fourier, frequencies=frequencies)
    )
    smooth = frequencies is not None
    taps = (1, 3, 3, 1) if smooth else (1, 1)
    module = SongUNet(
        noise_embedding=embedding,
        **UNET,
        residual_encoder=smooth,
        resample_filter=taps,
        num_classes=num_classes,
        augment_features=0 if second_branch else 9,
        second_time=second_branch,
        second_branch=second_branch,
    )
    network = {
        "unet": "song",
        "resolution": 8,
        "multipliers": (1, 2),
        "resample_filter": taps,
        "frequencies": frequencies,
    }
    settings = {"network": network | {"residual_encoder": smooth}, "call": call}
    given = {} if second_branch else {"preconditioning": "edm"}
    return Case("edm", module, settings, given)


def dhariwal() -> Case:
    shape: dict[str, Any] = {"channels": 64, "multipliers": (1, 1), "blocks": 0, "attention_resolutions": (4,)}
    module = adm(**shape, num_classes=5, augment_features=9)
    network = {"unet": "adm", "resolution": 8, "multipliers": (1, 1), "resample_filter": (1, 1), "frequencies": None}
    settings = {"network": network | {"residual_encoder": False}, "call": {"kind": "edm"}}
    return Case("edm", module, settings, {"preconditioning": "edm"})


def openai_unet(blocks_resample: bool, axes: int, order: str, second_branch: bool = False, **given) -> Case:
    scale = TIME_SCALE if axes == 4 else 1.0
    module = adm(**UNET | {"channels": 32}, channels_per_head=16, num_classes=5).clone(
        noise_embedding=partial(scaled_sinusoids, features=32, scale=scale),
        norm=partial(group_norm, epsilon=1e-5, least=1),
        resampling_blocks=blocks_resample,
        out_channels=6 if axes == 3 else 3,
        second_time=second_branch,
        second_branch=second_branch,
    )
    network = {"multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,), "channels_per_head": 16}
    network |= {"resampling_blocks": blocks_resample, "qkv": order, "projection_axes": axes}
    given |= {"resolution": 8, "channels_per_head": 16}
    return Case("openai", module, {"network": network, "shape": SHAPE}, given)


def transformer() -> Case:
    module = DiT(patch=2, width=24, depth=2, heads=3, mlp_ratio=3, num_classes=5, out_channels=8)
    settings = {"network": {"patch": 2, "depth": 2, "width": 24}, "shape": (8, 8, 4)}
    return Case("dit", module, settings, {"program": "sit", "heads": 3})


CASES = {
    "ddpmpp": song(num_classes=5, kind="edm"),
    "ncsnpp": song(frequencies=(0.5, -1.25, 2.0, 16.5, 0.25, 3.0, -7.0, 1.0), kind="edm"),
    "ctm": song(second_branch=True, num_classes=5, kind="trajectory"),
    "dhariwal": dhariwal(),
    "consistency_models": openai_unet(True, 4, "qkv head dim"),
    "ctm_imagenet64": openai_unet(True, 4, "qkv head dim", second_branch=True),
    "guided_diffusion": openai_unet(False, 3, "head qkv dim", schedule="linear"),
    "guided_diffusion_new_order": openai_unet(True, 3, "qkv head dim", schedule="cosine", new_attention_order=True),
    "sit": transformer(),
}


def params_of(case: Case) -> Any:
    """Random parameters."""
    channels = case.settings.get("shape", SHAPE)[-1]
    module: Any = case.module
    told = {"labels": module.num_classes > 0, "second_time": module.second_time}
    shapes = shapes_of(module, (1, 8, 8, channels), (1,), **told)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: (0.1 * rng.standard_normal(a.shape)).astype(np.float32), shapes)


def tensors(case: Case, params: Any) -> dict[str, np.ndarray]:
    """The same as the other program has them, its buffers among them."""
    family = FAMILIES[case.family]
    buffers = {name: np.asarray(a, np.float32) for name, a in family.constants(case.settings).items()}
    return tensors_of(params, family.stored_at(case.settings)) | buffers


def write(path: Path, name: str) -> tuple[Path, Case, Any]:
    """A checkpoint of a case, in torch's zip; the case; and its parameters."""
    case = CASES[name]
    params = params_of(case)
    return written.write_state_dict(path, tensors(case, params)), case, params


def levels() -> tuple[float, ...]:
    """Of the schedule of DDPM."""
    return openai.noise_levels("linear")


def edm2_snapshot(
    path: Path, *, shape: tuple[int, int, int] = SHAPE, num_classes: int = 5, **changes: Any
) -> tuple[Path, Any]:
    """A snapshot of EDM2 in 16 bits, and its parameters."""
    unet = UNET | changes
    rng = np.random.default_rng(0)
    frequencies, phases = rng.standard_normal((2, 8)).astype(np.float16)
    settings: dict[str, Any] = {
        "network": {"channels_per_head": 8, "frequencies": frequencies, "phases": phases},
        "log_variance": {"frequencies": frequencies[:6], "phases": phases[:6]},
    }
    module = edm2(**unet, channels_per_head=8, num_classes=num_classes)
    shapes = {
        "network": shapes_of(module, (1, *shape), (1,), labels=num_classes > 0),
        "log_variance": {"linear": {"weight": jax.ShapeDtypeStruct((6, 1), np.float32)}},
    }
    params = jax.tree.map(lambda a: rng.standard_normal(a.shape).astype(np.float16).astype(np.float32), shapes)
    family = FAMILIES["edm2"]
    arrays = tensors_of(params, family.stored_at(settings)) | dict(family.constants(settings))
    arguments: dict[str, Any] = {
        "img_resolution": shape[0],
        "img_channels": shape[2],
        "label_dim": num_classes,
        "model_channels": 8,
    }
    arguments |= {"channel_mult": list(unet["multipliers"]), "attn_resolutions": list(unet["attention_resolutions"])}
    arguments |= {"num_blocks": 1, "channels_per_head": 8}
    half = {name: np.asarray(a, np.float16) for name, a in arrays.items()}
    module_record = written.module("Precond", half, _init_kwargs=arguments, sigma_data=0.5)
    return written.write_pickle(path, written.dict_of({"ema": module_record})), params
