"""What the runs share that distil Stable Diffusion: its U-Net, captioned latents, adapters, samples of captions.

Not a run. The teacher is a folder in the layout of diffusers, `unet` in a pipeline, with config.json and safetensors:
--config.teacher=FOLDER. Latents and the states of their captions are read by `data.captioned_latents`:
--config.data=FOLDER. Without either a run can be built, with the network of SD 1.5, and looked at.

Parameters are {"network": of the teacher's shapes}, "added" beside it for the layers of s or w that the teacher has
not, and "adapters" if config.lora_rank is not 0: then the network is the teacher, and stays it.
"""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

import data
import eval as evaluation
from configs import adapters, glue
from losses import conversions, paths
from losses.paths import at_least_float32, expand
from losses.types import Net
from models import guide, lora
from models.stable_unet import StableUNet, stable_1_5
from models.stable_unet_weights import read_stable, stable_from
from train import Context, Params, Sampler, averages

Text: TypeAlias = Any
"""States of captions [B, L, D], a jax.Array; it takes the place of labels in the joints of glue.py"""

PATH = paths.scaled_linear_beta()
SHAPE, TEXT_LENGTH = (64, 64, 4), 77  # 512 x 512 pixels, and the tokens of a caption
SHOWN = 16  # captions of the first examples, of which samples are drawn
ADDED = ("map_s", "map_w")
WITHOUT_ADAPTER = ("in_conv", "out_conv", "map_layer0", "map_layer1")


def common() -> ConfigDict:
    """Values that these runs have."""
    return ConfigDict(
        {
            "seed": 0,
            "data": "",
            # the teacher, and what its weights predict: v (2.1 at 768 pixels) or noise (all others)
            "teacher": "",
            "v_prediction": False,
            "bfloat16": True,  # float16 in the papers
            "remat": "full",
            # one step of the teacher's DDIM
            "solver_steps": 50,
            # AdamW
            "clip": 1.0,
            "weight_decay": 0.0,
            "accumulate": 1,
            "fsdp": 1,
            # samples are latents: a few, of the first captions
            "judged_samples": SHOWN,
            "log_every": 10,
            "checkpoint_every": 1000,
        }
    )


# ---- Teacher and student ---------------------------------------------------------------------------------------------


def network(config: ConfigDict) -> StableUNet:
    """The teacher's network, without a second time or a scale.

    Raises:
        FileNotFoundError: the folder has no config.json.
        ValueError: another network than Stable Diffusion's, or weights that predict something else than the run says.
    """
    model = stable_1_5()
    if config.teacher:
        folder = _folder(config)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json; it should be `unet` of a pipeline of diffusers")
        try:
            model = stable_from(json.loads((folder / "config.json").read_text()))
        except ValueError as error:
            raise ValueError(f"the teacher in {folder}: {error}") from error
        scheduler, here = folder.parent / "scheduler" / "scheduler_config.json", _predicts(config)
        if scheduler.is_file():
            there = json.loads(scheduler.read_text()).get("prediction_type", here)
            if there != here:
                raise ValueError(
                    f"{scheduler} says prediction_type={there!r}, this run {here!r}; change --config.v_prediction"
                )
    return model.clone(dtype=jnp.bfloat16 if config.bfloat16 else jnp.float32, remat=glue.remat(config.remat))


def _folder(config: ConfigDict) -> Path:
    return Path(config.teacher).expanduser()


def _predicts(config: ConfigDict) -> str:
    return "v_prediction" if config.v_prediction else "epsilon"


def weights(params: Params) -> Params:
    """Parameters of the whole network, as it is called."""
    return (adapters.weights(params) if "adapters" in params else params["network"]) | params.get("added", {})


def denoiser(
    config: ConfigDict,
    model: StableUNet,
    weights: Params,
    text: Text,
    *,
    w: float | jax.Array | None = None,
    s: jax.Array | None = None,
) -> Net:
    """The data prediction of the network on `PATH` for these captions; a scale w is one number or one per example."""

    def D(x_t: jax.Array, t: jax.Array) -> jax.Array:
        scale = None if w is None else jnp.broadcast_to(w, t.shape)
        out = at_least_float32(jnp.asarray(model.apply({"params": weights}, x_t, t, text, s, scale)))
        if config.v_prediction:  # v = alpha z - sigma x, which is no derivative in t of this path
            return expand(PATH.alpha(t), x_t) * x_t - expand(PATH.sigma(t), x_t) * out
        return conversions.from_z(PATH, x_t, out, t).x

    return D


def teacher(
    config: ConfigDict,
    model: StableUNet,
    params: Params,
    context: Context,
    text: Text,
    empty: np.ndarray,
    *,
    scale: float | jax.Array,
) -> Net:
    """The teacher's denoiser, guided against the empty caption by one scale or one for each example."""
    plain = model.clone(second_time=False, guided=False)
    D = partial(denoiser, config, plain, teacher_weights(params, context))
    return guide(D(text), D(jnp.broadcast_to(empty, text.shape)), scale)


def teacher_weights(params: Params, context: Context) -> Params:
    """The frozen network, and where adapters are trained the student's own without them."""
    return context.frozen if context.frozen is not None else jax.lax.stop_gradient(params["network"])


def _parts(config: ConfigDict, key: jax.Array, whole: Params) -> Params:
    """The parameters of a run from those of its whole network."""
    network = {name: layer for name, layer in whole.items() if name not in ADDED}
    added = {name: layer for name, layer in whole.items() if name in ADDED}
    params = {"network": network} | ({"added": added} if added else {})
    if config.lora_rank:
        params["adapters"] = lora.lora(key, network, config.lora_rank, select=has_adapter)
    return params


def has_adapter(path: str, leaf: jax.Array) -> bool:
    """The kernels that LCM-LoRA adapts: attention, feed-forward, convolutions, and the time's in every block."""
    return lora.is_kernel(path, leaf) and path.split("/", 1)[0] not in WITHOUT_ADAPTER


def init(config: ConfigDict, model: StableUNet) -> Callable[[jax.Array], Params]:
    """key -> random parameters of the run, for their shapes."""
    side = 2 ** (len(model.channels) - 1)
    x, t = jnp.zeros((1, side, side, model.latent_channels)), jnp.zeros(1)
    text = jnp.zeros((1, 1, model.text_features))
    s, w = (t if told else None for told in (model.second_time, model.guided))

    def of(key: jax.Array) -> Params:
        key_network, key_adapters = jax.random.split(key)
        return _parts(config, key_adapters, model.init(key_network, x, t, text, s, w)["params"])

    return of


def initial(config: ConfigDict, model: StableUNet) -> Params:
    """The parameters to start from: the teacher's, to which the rest adds nothing yet."""
    whole = read_stable(_folder(config), second_time=model.second_time, guided=model.guided)[1]["params"]
    return _parts(config, jax.random.key(config.seed), whole)


def frozen(config: ConfigDict) -> Params:
    """The teacher's parameters, or None where the run's own are."""
    if not config.teacher:
        raise ValueError("this run needs Stable Diffusion's U-Net: give its folder with --config.teacher=FOLDER")
    return None if config.lora_rank else read_stable(_folder(config))[1]["params"]


# ---- Data ------------------------------------------------------------------------------------------------------------


class Captions(NamedTuple):
    """What a run is trained on.

    Attributes:
        source: latents and states of their captions, or what is known of them while they are not there.
        empty: states of the empty caption, [L, D].
        shown: states of the captions that samples are drawn of, [k, L, D].
    """

    source: data.Source
    empty: np.ndarray
    shown: np.ndarray


def captions(config: ConfigDict, model: StableUNet) -> Captions:
    """The latents and captions in config.data, checked against the network.

    Raises:
        ValueError: if they are of other channels or of another text encoder, or cannot be halved often enough.
    """
    try:
        if not config.data:
            raise FileNotFoundError(f"give --config.data=FOLDER, {data.CAPTIONED_FILES}")
        source = data.captioned_latents(config.data)
    except FileNotFoundError as error:
        nothing = np.zeros((1, TEXT_LENGTH, model.text_features), np.float32)
        absent = data.absent("captioned latents", (*SHAPE[:2], model.latent_channels), 0, str(error))
        return Captions(absent, nothing[0], nothing)
    height, width, channels = source.shape
    features, factor = source.empty.shape[1], 2 ** (len(model.channels) - 1)
    if (channels, features) != (model.latent_channels, model.text_features):
        raise ValueError(
            f"{config.data} has latents of {channels} channels and texts of {features} features, "
            f"the network takes {model.latent_channels} and {model.text_features}"
        )
    if height % factor or width % factor:
        raise ValueError(f"{config.data} has latents of {height} x {width}, the network needs multiples of {factor}")
    return Captions(source, source.empty, source.take(np.arange(min(SHOWN, len(source))))["text"])


def drawn(samplers: Iterable[Sampler], captions: Captions) -> tuple[Sampler, ...]:
    """Samplers of (params, keys, states of captions) as samplers of a run: each key draws one of the shown captions.

    Labels are not looked at, since evaluation gives all samples of a run without classes the same.
    """

    def sample(of_text: Callable[..., jax.Array], params: Params, keys: jax.Array, labels: jax.Array) -> jax.Array:
        shown = jnp.asarray(captions.shown)
        numbers = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 2**31 - 1), (), 0, len(shown)))(keys)
        return of_text(params, keys, shown[numbers])

    return tuple(sampler._replace(sample=partial(sample, sampler.sample)) for sampler in samplers)


# ---- Experiment ------------------------------------------------------------------------------------------------------


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW at a constant rate after clipping; of what is trained alone."""
    adamw = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
    chain = optax.chain(optax.clip_by_global_norm(config.clip), adamw)
    return adapters.optimizer(chain) if config.lora_rank else chain


def fields(
    config: ConfigDict,
    model: StableUNet,
    captions: Captions,
    samplers: Iterable[Sampler],
    *,
    target_decay: float | None = None,
) -> dict[str, Any]:
    """The fields of an Experiment that these runs have in common; its samples are latents, which nobody judges.

    With a decay there is an average of the weights, the target of the loss, and it is what is sampled.
    """
    averaged = {} if target_decay is None else {"target": partial(averages.constant, decay=target_decay)}
    run_data = glue.image_data(captions.source, seed=config.seed, batch_size=config.batch_size)
    return {
        "init": init(config, model),
        "initial": partial(initial, config, model) if config.teacher else None,
        "frozen": partial(frozen, config),
        "optimizer": optimizer(config),
        "averages": averaged,
        "samplers": drawn(samplers, captions),
        "judge": partial(evaluation.judge, references=()),
        "judged_average": next(iter(averaged), "params"),
        "judged_samples": config.judged_samples,
        "steps": config.steps,
        "accumulate": config.accumulate,
        "fsdp": config.fsdp,
        "log_every": config.log_every,
        "checkpoint_every": config.checkpoint_every,
        **run_data,
        "prepare": lambda key, batch: batch,
        "batch_like": None,
    }
