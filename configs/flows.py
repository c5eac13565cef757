"""Flows as teachers: how a student starts from one, the pairs made with it, and how a student takes those.

Not a run. `main.py --mode=pairs` joins noise with data along a trained flow and keeps both; reflow trains on them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import data
import eval as evaluation
import train
from configs import glue, latents, odes, teachers, trained_models
from losses import interpolate
from samplers import heun, invert, sample_keys
from samplers.noise import initial

LACKING = (
    "make them with `python main.py --workdir RUN --mode=pairs --n=N --out=FOLDER`, RUN being that of a flow, and give"
    " --config.pairs=FOLDER"
)


# Config values that decide what the weights of a network mean, and those of networks whose config does not say them.
NETWORK: dict[str, Any] = {
    "patch": None,
    "width": None,
    "depth": None,
    "heads": None,
    "mlp_ratio": 4,
    "time_scale": 1.0,
    "double_norm": False,
}


# ---- Starts ----------------------------------------------------------------------------------------------------------


class Trained(NamedTuple):
    """A flow, and its parameters.

    Attributes:
        values: of its config.
        flow: what it is.
        params: () -> those of its network.
        like: () -> their shapes and types.
    """

    values: ConfigDict
    flow: trained_models.Flow
    params: Callable[[], train.Params]
    like: Callable[[], train.Params]


def read(run: str) -> Trained:
    """The flow of a run, or of a config such as configs/imagenet256_sit.py:B that is yet to be trained, to plan for.

    Raises:
        FileNotFoundError: if there is no run, or it has no checkpoint, when the parameters are read.
        ValueError: if the run is not of a flow.
    """
    config_file, config, trained = teachers.run_or_config(run)
    module = evaluation.load_module(config_file)
    if not hasattr(module, "flow"):
        raise ValueError(f"the run in {run} is of {config_file.name}, which does not train a flow")
    flow: trained_models.Flow = module.flow(config)

    def params() -> train.Params:
        if not trained:
            lacking_flow()
        return flow.network(train.restore_average(run, flow.average)[0])

    return Trained(config, flow, params, partial(teachers.shapes, module, config, flow.network, params))


def lacking_flow(*args: Any) -> Any:
    """Say what a run lacks that has no flow to start from or to follow.

    Raises:
        ValueError: always.
    """
    raise ValueError("this run needs a trained flow: give its workdir with --config.teacher_run=DIR")


def start(config: ConfigDict, model: glue.Backbone, source: data.Source) -> dict[str, Any]:
    """The field of an Experiment that starts it from the flow in config.teacher_run; without one it starts at random.

    Of a network that is told a second time, the layers for that start at random, as `teachers.extended_start` says.

    Raises:
        FileNotFoundError: if there is no run, or it has no checkpoint, when the parameters are read.
        ValueError: if the run is not of a flow, of other data, or of another network, with the values that differ.
    """
    if not config.teacher_run:
        return {}
    theirs, flow, trained, _ = read(config.teacher_run)
    values = theirs if flow.values is None else flow.values
    pairs = [(name, values.get(name, usual), config.get(name, usual)) for name, usual in NETWORK.items()]
    pairs += [("shape", tuple(flow.shape), tuple(source.shape))]
    pairs += [("num_classes", flow.num_classes, source.num_classes)]
    differing = [f"{name} {there} there, {here} here" for name, there, here in pairs if there != here]
    if differing:
        raise ValueError(f"the flow in {config.teacher_run} has another network: {', '.join(differing)}")

    def initial() -> train.Params:
        params = trained()
        if not model.second_time:
            return params
        own = glue.initialiser(model, source)(jax.random.key(config.seed))
        return teachers.extended_start(model, source, own, params)

    return {"initial": initial}


# ---- Pairs -----------------------------------------------------------------------------------------------------------


def make_pairs(
    workdir: str | Path,
    folder: str | Path,
    *,
    n: int | None,
    seed: int = 0,
    inverted: bool = False,
    eight_bit: bool = False,
    solver_steps: int | None = None,
    average: str | None = None,
    step: int | None = None,
    batch_size: int = 500,
) -> dict[str, Any]:
    """Pairs of noise and data joined by the ODE of a trained run, in a folder; the record of `data.pairs`.

    Pair i is a function of (seed, i) and of the solver: noise drawn from the seed goes down by Heun steps and has label
    i modulo the classes; with `inverted`, real image i goes up by them. An interrupted call is gone on with by the
    same call.

    Args:
        workdir: of the run.
        folder: of the pairs.
        n: how many; of inverted images all if None.
        seed: of the noise.
        inverted: take real images up instead of noise down (Lee et al. 2024, configuration G).
        eight_bit: store images in 8 bits.
        solver_steps: Heun steps, about two velocities each; 32 of a flow and 18 of a diffusion model if None.
        average: which weights; those that its config names if None.
        step: which checkpoint; the newest if None.
        batch_size: pairs in one call, which is spread over the devices of this host.

    Raises:
        FileNotFoundError: there is no such run or checkpoint, or the images are not there.
        ValueError: the run has no ODE, the number is missing or more than there are images, or the folder holds other
            pairs.
    """
    ode = odes.read(workdir)
    if inverted and ode.images is None:
        raise ValueError(f"the run in {workdir} does not say which images it was trained on")
    images = ode.images() if inverted and ode.images is not None else None
    if isinstance(images, data.AbsentSource):
        images[0]  # says what to prepare
    n = len(images) if n is None and images is not None else n
    if n is None or n < 1:
        raise ValueError(f"pairs need their number, at least 1, got n={n}: give --n")
    if images is not None and n > len(images):
        raise ValueError(f"n={n} is more than the {len(images):,} images of {images.name}")
    steps = ode.solver_steps if solver_steps is None else solver_steps
    times, average = ode.times(steps), average or ode.average
    trained, step = train.restore_average(workdir, average, step)
    params = ode.network(trained)
    config_file, config = evaluation.read_run(workdir)
    sha256 = latents.sha256_of(params)
    making = _generating if images is None else partial(_inverting, images=images)
    return data.write_pairs(
        folder,
        making(ode, times, seed, params),
        name=f"{'inversions' if inverted else 'pairs'} of {sha256[:12]}, seed {seed}, {steps} steps",
        origin={
            "sha256": sha256,
            "config_file": config_file.name,
            "config": config.to_dict(),
            "average": average,
            "step": step,
            "seed": seed,
            "solver_steps": steps,
            "images": None if images is None else data.fingerprint(images, seed=0, batch_size=1)["content"],
        },
        count=n,
        shape=ode.shape,
        num_classes=ode.num_classes,
        eight_bit=eight_bit,
        batch_size=min(batch_size, n),
    )


def _generating(ode: odes.Ode, times: np.ndarray, seed: int, params: train.Params) -> Callable[[np.ndarray], Any]:
    def generate(params: train.Params, indices: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        z = initial(sample_keys(seed, indices), ode.shape)
        labels = indices % max(ode.num_classes, 1)
        x = ode.path.sigma(jnp.float32(times[0])) * z
        return heun(ode.velocity(params, labels if ode.num_classes else None), x, times), z, labels

    return cast(Callable[[np.ndarray], Any], evaluation.over_devices(generate, params))


def _inverting(
    ode: odes.Ode, times: np.ndarray, seed: int, params: train.Params, images: data.Source
) -> Callable[[np.ndarray], Any]:
    def noise_of(params: train.Params, x: jax.Array, labels: jax.Array, indices: jax.Array) -> jax.Array:
        noise = initial(sample_keys(seed, indices), ode.shape)
        x_end = interpolate(ode.path, x, noise, jnp.full(len(x), ode.end))
        velocity = ode.velocity(params, labels if ode.num_classes else None)
        return invert(velocity, x_end, times, end=ode.end) / ode.path.sigma(jnp.float32(times[0]))

    spread_noise_of = evaluation.over_devices(noise_of, params)

    def make(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        examples = [images[int(i)] for i in indices]
        x = np.asarray(data.to_model_range(jnp.stack([example["image"] for example in examples])))
        labels = np.asarray([example.get("label", 0) for example in examples], np.int32)
        return x, spread_noise_of(x, labels, indices), labels

    return make


# ---- Students --------------------------------------------------------------------------------------------------------


def pairs_of(config: ConfigDict, shape: tuple[int, int, int], num_classes: int) -> Any:
    """The pairs in config.pairs, followed by those in config.real_pairs if that is given.

    Without them the run can be built and looked at, and says what it lacks when it is to be trained.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: pairs of other data than this run's, or of two flows.
    """
    if not config.pairs:
        return data.absent("pairs", shape, num_classes, LACKING)
    folders = (config.pairs, config.real_pairs) if config.real_pairs else (config.pairs,)
    return data.joined(*(data.pairs(folder, shape=shape, num_classes=num_classes) for folder in folders))


def pair_data(source: Any, *, seed: int, batch_size: int, num_classes: int) -> dict[str, Any]:
    """The fields of an Experiment that say what it is trained on: images with their `noise`.

    As `glue.image_data`, in whose place it stands. Nothing is mirrored, since a flow joins a mirrored image with other
    noise. The range is not checked, as what a flow makes may lie somewhat outside [-1, 1].
    """

    def batches(start_step: int, rows: Sequence[int] | None = None) -> Iterator[train.Batch]:
        if isinstance(source, data.AbsentSource):
            source[0]  # says what to prepare
        yield from data.batches(source, seed=seed, batch_size=batch_size, start_step=start_step, rows=rows)

    def prepare(key: jax.Array, batch: train.Batch) -> train.Batch:
        image = batch["image"]
        image = data.to_model_range(image) if image.dtype == jnp.uint8 else image
        labels = {"label": batch["label"]} if num_classes else {}
        return {"image": image, "noise": batch["noise"], **labels}

    fields = glue.image_data(source, seed=seed, batch_size=batch_size, num_classes=num_classes)
    return {**fields, "batches": batches, "prepare": prepare, "batch_like": None}
