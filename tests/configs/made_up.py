"""Data, parameters and teachers that are made up, so that every config can take a step in seconds."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import data
from configs import latents
from models.pretrained import stable_autoencoder
from models.pretrained.stable_autoencoder import autoencoder_from
from models.pretrained.stable_autoencoder_names import DIFFUSERS
from models.pretrained.tensors import tensors_of
from train import Experiment, Record, write_record
from train.checkpoint import open_checkpoints, save

SHAPE, LATENT_SHAPE, CLASSES = (8, 8, 3), (8, 8, 4), 10

SMALL: dict[str, Any] = {
    "steps": 12,
    "batch_size": 8,
    "channels": 8,
    "multipliers": (1,),
    "channels_per_head": 8,
    "blocks": 1,
    "width": 16,
    "depth": 1,
    "judged_samples": 16,
    "tfds": "imagenet",
}
# Curricula that would not fit into twelve steps.
SPECIAL: dict[str, dict[str, Any]] = {
    "cifar10_ict": {"s1": 20},
    "imagenet64_ict": {"s1": 20},
    "cifar10_ect": {"stage_steps": 2},
    "cifar10_stable": {"stage_steps": 2},
    **{f"mnist_{name}": {"patch": 4} for name in ("teacher", "ect", "scm")},
    "latents_ilct": {"s1": 20},
    "cifar10_consistency_fm": {"first_stage_steps": 6},
    "digits_shortcut": {"finest": 2},
    "imagenet256_shortcut": {"finest": 2, "heads": 4},
    "imagenet256_imm": {"heads": 4},
    "imagenet256_scm_distillation": {"heads": 2},
    "imagenet256_sit": {"heads": 2},  # XLA on a CPU aborts on heads of one feature in bfloat16
    "imagenet256_mean_flow": {"heads": 2},
    **{f"imagenet256_{name}": {"heads": 2} for name in ("lsd", "esd", "psd", "ayf")},
    "imagenet256_improved_mean_flow": {"heads": 2, "depth": 2, "head_depth": 1},
    "imagenet256_improved_mean_flow_sit": {"heads": 2},
    "imagenet256_ilct": {"heads": 2, "s1": 20},
    "digits_vct": {"encoder_width": 8},
    "cifar10_vct": {"stage_steps": 2, "encoder_channels": 8},
    "cifar10_vct_ict": {"s1": 20, "encoder_channels": 8},
    **{
        f"digits_{name}": {"chain_steps": 3, "early": 1, "last": 1}
        for name in ("adjoint_matching", "continuous_adjoint")
    },
    "digits_draft": {"chain_steps": 3, "last": 2},
    **{
        f"imagenet256_{name}": {"heads": 2, "chain_steps": 3, "early": 1, "last": 1}
        for name in ("adjoint_matching", "continuous_adjoint")
    },
    "imagenet256_draft": {"heads": 2, "chain_steps": 3, "last": 2},
}
TEACHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "cifar10_cd": ("cifar10_edm", {"ncsnpp": True}),
    "cifar10_ect": ("cifar10_edm", {}),
    "cifar10_stable": ("cifar10_edm", {}),
    "cifar10_scm_training": ("cifar10_trigflow", {}),
    "cifar10_scm_distillation": ("cifar10_trigflow", {}),
    "imagenet64_cd": ("imagenet64_edm", {}),
    "imagenet64_ect": ("imagenet64_edm2", {}),
    "imagenet64_stable": ("imagenet64_edm2", {}),
    "imagenet64_scm_training": ("imagenet64_trigflow", {}),
    "imagenet64_scm_distillation": ("imagenet64_trigflow", {}),
    "imagenet64_multistep_training": ("imagenet64_cosine", {}),
    "imagenet64_multistep_distillation": ("imagenet64_cosine", {}),
    "imagenet64_multistep_adm": ("imagenet64_edm", {}),
    "imagenet256_scm_distillation": ("imagenet256_sit", {}),
    **{f"imagenet256_{name}": ("imagenet256_sit", {}) for name in ("adjoint_matching", "continuous_adjoint", "draft")},
    "imagenet256_ayf": ("imagenet256_sit", {}),
    "imagenet512_scm_training": ("imagenet512_trigflow", {}),
    "imagenet512_scm_distillation": ("imagenet512_trigflow", {}),
    **{f"digits_{name}": ("digits_teacher", {}) for name in ("cd", "ect", "stable", "scm", "scm_guided", "multistep")},
    **{f"digits_{name}": ("digits_teacher", {}) for name in ("ctm", "tcd", "pcm", "lcm", "lcm_lora")},
    "digits_lcf": ("digits_lcm", {}),
    "digits_ayf": ("digits_rectified_flow", {}),
    "digits_vct": ("digits_teacher", {}),
    "cifar10_vct": ("cifar10_edm", {}),
    **{f"digits_{name}": ("digits_rectified_flow", {}) for name in ("adjoint_matching", "continuous_adjoint", "draft")},
    "cifar10_ctm": ("cifar10_edm", {}),
    "imagenet64_ctm": ("imagenet64_edm", {}),
    **{f"mnist_latent_{name}": ("mnist_latent_teacher", {}) for name in ("lcm", "tcd", "pcm")},
    **{f"mnist_{name}": ("mnist_teacher", {}) for name in ("ect", "scm")},
    **{f"digits_{name}": ("digits_rectified_flow", {}) for name in ("reflow", "consistency_fm")},
    "cifar10_reflow": ("cifar10_edm", {"ncsnpp": True}),
}


class Moments:
    """Latents with the width of their posterior, with or without labels."""

    name, shape = "latents", LATENT_SHAPE

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        image = 0.5 * np.random.default_rng(index).standard_normal(self.shape).astype(np.float32)
        labels = {"label": np.int32(index % self.num_classes)} if self.num_classes else {}
        return {"image": image, "logvar": np.full(self.shape, -9.0, np.float32), **labels}

    def take(self, indices: np.ndarray) -> Any:
        """A batch of them."""
        examples = [self[int(i)] for i in indices]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def space(num_classes: int) -> latents.Space:
    """Where a model of latents lives, whose images are its latents."""
    scale = data.Scale((0.0,) * 4, (1.0,) * 4)
    return latents.Space(Moments(num_classes), scale, lambda params, z: z, None, images)


def images() -> data.ArraySource:
    """Noise with ten labels."""
    image = np.random.default_rng(0).integers(0, 256, (64, *SHAPE), np.uint8)
    return data.ArraySource("made_up", image, np.arange(64, dtype=np.int32) % CLASSES, CLASSES)


def pairs(shape: tuple[int, ...], num_classes: int) -> data.PairSource:
    """Images with noise that no flow has joined them with."""
    image, noise = np.random.default_rng(0).standard_normal((2, 64, *shape)).astype(np.float32)
    labels = (np.arange(64, dtype=np.int32) % num_classes,) if num_classes else ()
    height, width, channels = shape
    return data.PairSource("made_up", (height, width, channels), num_classes, ({},), (image,), (noise,), labels)


def images_file(folder: Path) -> Path:
    """The same in a file."""
    path, source = folder / "images.npz", images()
    np.savez(path, image=source.image, label=np.asarray(source.label))
    return path


def autoencoder_folder(folder: Path) -> Path:
    """An autoencoder as diffusers stores it, of two resolutions, with random numbers."""
    settings = {"_class_name": "AutoencoderKL", "block_out_channels": [4, 8], "layers_per_block": 1}
    settings |= {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "norm_num_groups": 2}
    (folder / "config.json").write_text(json.dumps(settings))
    network, rng = autoencoder_from(settings), np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: 0.3 * rng.standard_normal(leaf.shape).astype(np.float32),
        stable_autoencoder.variables(network)["params"],
    )
    tensors = tensors_of(params, stable_autoencoder.stored_at(DIFFUSERS, len(network.multipliers)))
    importlib.import_module("safetensors.numpy").save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return folder


def module(name: str) -> ModuleType:
    """The module of a config."""
    return importlib.import_module(f"configs.{name}")


def small(name: str, **changes: Any) -> ConfigDict:
    """The values of a config, shrunken as far as it has them."""
    config = module(name).get_config()
    for field, value in (SMALL | SPECIAL.get(name, {})).items():
        if field in config:
            config[field] = value
    config.update(changes)
    return config


def params(experiment: Experiment) -> Any:
    """Parameters of the right shapes, none of them zero as at initialisation, without a compilation."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
    return jax.tree.map(lambda leaf: 0.1 * rng.standard_normal(leaf.shape).astype(leaf.dtype), shapes)


def run(workdir: Path, name: str, **changes: Any) -> Path:
    """The folder of a run of one step that nobody trained."""
    config = small(name, **changes)
    experiment = module(name).build(config)
    write_record(workdir, Record(f"configs/{name}.py", config.to_dict()))
    weights = params(experiment)

    def times(factor: float) -> Any:
        return jax.tree.map(lambda leaf: jax.numpy.asarray(factor * leaf, leaf.dtype), weights)

    # Each average is told from the others and from the parameters.
    tree = {"params": times(1), "averages": {name: times(1.1 + i / 10) for i, name in enumerate(experiment.averages)}}
    with open_checkpoints(workdir / "checkpoints") as checkpoints:
        save(checkpoints, 1, tree, {})
    return workdir
