"""What a config hands to the trainer: an Experiment of plain callables. The trainer knows no method by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .sharding import check_batch_size
from .weights import restore_average

Params: TypeAlias = Any  # a pytree of arrays; several networks are a dict of them
Batch: TypeAlias = Mapping[str, Any]  # arrays with the examples on their first axis
Key: TypeAlias = PRNGKeyArray
Step: TypeAlias = Int[Array, ""]
PerExample: TypeAlias = Float[Array, "batch"]
Decay: TypeAlias = Callable[[Step], Array]  # decay of a weight average at a step, in [0, 1]


class Context(NamedTuple):
    """What an objective may look at besides parameters and batch.

    Attributes:
        step: optimizer steps taken so far, a traced int32: curricula are functions of it and compile once.
        frozen: parameters that are never trained (a teacher, features of a distance), or None.
        averages: the weight averages by name, of the parameters before this step.
    """

    step: Step
    frozen: Any
    averages: dict[str, Params]


class Batches(Protocol):
    """Endless host batches from a step on, a function of the position alone."""

    def __call__(self, start_step: int, rows: Sequence[int] | None = None, /) -> Iterator[Batch]:
        """Batches start_step, start_step + 1, ...; of each the rows of the global batch that are named, or all."""


class Sampler(NamedTuple):
    """One way to draw samples, and what it is called in every table.

    Attributes:
        name: says method and times, e.g. "consistency 80, 0.8".
        nfe: network evaluations per sample; 0 if samples differ in that.
        sample: (params, keys[B], labels[B]) -> float32 images [B, H, W, C] in [-1, 1], or vectors. Sample i depends on
            its own key and label alone.
    """

    name: str
    nfe: int
    sample: Callable[[Params, Key, Int[Array, "batch"]], Array]


class Periodic(NamedTuple):
    """Something to do every so many steps: draw a grid, compute a metric.

    Attributes:
        every: period in steps; also run after the last step.
        run: (workdir, step, {"params": ..., each average by name}) -> scalars to log.
        averages: those of these that it reads, so that one that is not there is told before the first step.
        ready: called before the first step; raises what would otherwise be raised when `run` is first called.
        name: what it is called when it fails. A ValueError or OSError of `run` ends no run of one process.
    """

    every: int
    run: Callable[[Path, int, dict[str, Params]], dict[str, float]]
    averages: tuple[str, ...] = ()
    ready: Callable[[], object] = lambda: None
    name: str = "something periodic"


class Experiment(NamedTuple):
    """A run, whole: everything the loop needs and everything evaluation needs.

    Attributes:
        init: key -> params.
        objective: (params, batch, key, context) -> (loss[B] float32, metrics {name: [B]}). A metric `t` also splits the
            logged loss into quarters of the batch by noise level.
        optimizer: an optax gradient transformation.
        averages: weight averages by name, each given by its decay as a function of the step.
        batches: (start step, rows or None) -> iterator of host batches, a function of the position alone, so that an
            iterator started at step k goes on exactly as one that was started at 0. Each process asks for its own rows
            of the global batch.
        fingerprint: identity of the data and their order; a run refuses to resume on another.
        prepare: (key, batch) -> batch, on device inside the step: range, augmentation.
        samplers: ways to sample, in the order of tables.
        judge: iterable of (uint8 images, labels) -> rows of metrics.
        judged_average: the average that grids and metrics are drawn from; "params" is none.
        judged_samples: samples per sampler at the end of the run.
        batch_size: global batch, in examples.
        steps: optimizer steps of the whole run.
        seed: the only source of randomness.
        num_classes: 0 for an unconditional model.
        frozen: () -> parameters that are never trained, or None; read when training starts, and only then.
        initial: () -> parameters to start from instead of those of `init`, of the same shapes, or None.
        accumulate: micro-batches per step.
        fsdp: devices that share one copy of parameters, optimizer and averages.
        tensor: devices that share the blocks of a DiT and take the same examples.
        averages_on_host: keep averages in the memory of the host; each step fetches and returns them.
        batch_like: shapes and types of a global batch, where they are known before any is read.
        frozen_like: () -> shapes and types of `frozen`, where they are known before it is read.
        periodic: things to do every so many steps.
        log_every: steps between rows of train.jsonl.
        checkpoint_every: steps between checkpoints; one more is written at the end.
        nonfinite_steps: steps on end whose loss or gradient is not finite that end the run. More than 1 is for an
            optimizer that leaves such steps out, `optax.apply_if_finite`.
        snapshot_every: steps between snapshots of all averages that are kept for post-hoc reconstruction; 0 for none.
        restore: (workdir, average, step or None) -> (params, step).
    """

    init: Callable[[Key], Params]
    objective: Callable[[Params, Batch, Key, Context], tuple[PerExample, dict[str, PerExample]]]
    optimizer: optax.GradientTransformation
    averages: dict[str, Decay]
    batches: Batches
    fingerprint: dict[str, Any]
    prepare: Callable[[Key, Batch], Batch]
    samplers: tuple[Sampler, ...]
    judge: Callable[[Any], list[dict[str, Any]]]
    judged_average: str
    judged_samples: int
    batch_size: int
    steps: int
    seed: int = 0
    num_classes: int = 0
    frozen: Callable[[], Any] = lambda: None
    initial: Callable[[], Params] | None = None
    accumulate: int = 1
    fsdp: int = 1
    tensor: int = 1
    averages_on_host: bool = False
    batch_like: Mapping[str, jax.ShapeDtypeStruct] | None = None
    frozen_like: Callable[[], Any] | None = None
    periodic: tuple[Periodic, ...] = ()
    log_every: int = 50
    checkpoint_every: int = 1000
    snapshot_every: int = 0
    nonfinite_steps: int = 1
    restore: Callable[[Path, str, int | None], tuple[Params, int]] = restore_average


def validate(experiment: Experiment) -> None:
    """Refuse values that cannot make a run, before anything compiles.

    Raises:
        ValueError: naming the value and what is allowed.
    """
    for name, least in (
        ("steps", 0),
        ("log_every", 1),
        ("checkpoint_every", 1),
        ("snapshot_every", 0),
        ("nonfinite_steps", 1),
    ):
        value = getattr(experiment, name)
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if experiment.judged_samples < 1:
        raise ValueError(f"judged_samples must be at least 1, got {experiment.judged_samples}")
    if not experiment.samplers:
        raise ValueError("a run needs at least one sampler to be judged by, got none")
    choices = ["params", *experiment.averages]
    for periodic in experiment.periodic:
        if periodic.every < 1:
            raise ValueError(f"the period of something periodic must be at least 1, got {periodic.every}")
        unknown = [name for name in periodic.averages if name not in choices]
        if unknown:
            raise ValueError(f"something periodic reads the average {unknown[0]!r}; there are: {', '.join(choices)}")
    if experiment.judged_average not in choices:
        raise ValueError(f"judged_average is {experiment.judged_average!r}; there are: {', '.join(choices)}")
    if experiment.tensor < 1:
        raise ValueError(f"tensor must be at least 1, got {experiment.tensor}")
    spread = max(jax.device_count() // experiment.tensor, 1)
    check_batch_size(experiment.batch_size, accumulate=experiment.accumulate, devices=spread)
