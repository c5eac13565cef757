"""How a run is judged, by values of its config: in which features, against what, and how often while it trains.

Not a run. Every published config on CIFAR-10 and ImageNet, and own_images, has these values:

    judged_features         ("pixels",), or those of one network, such as ("inception", "inception_logits"); () judges
                            nothing, the default where images are too large to be compared in pixels
    feature_weights         the file of that network; fetched once if not given
    feature_resize          how images come to its size; its usual way if not given
    judged_against          a file of moments, an npz or a folder of images; the images trained on if not given
    judged_samples          of each sampler
    judged_every            steps between judgements while training, 0 for none
    judged_averages         what is judged then, if not what is judged at the end
    judged_often_samples    of each sampler then
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

import data
import eval as evaluation
from configs import judges, judging
from train import Params, Periodic, Sampler

PIXELS = (evaluation.pixels.name,)
KEPT = 10_000  # real images whose features are kept, for KID, precision and recall
READ_AT_A_TIME = 250

Judge = Callable[[evaluation.Batches], list[evaluation.Row]]
Images = Callable[[], data.Source]


def values(*features: str, averages: Sequence[str] = ()) -> dict[str, Any]:
    """Those of a config, whose samples are judged in these features."""
    return {
        "judged_features": features,
        "feature_weights": "",
        "feature_resize": "",
        "judged_against": "",
        "judged_samples": 50_000,
        "judged_every": 0,
        "judged_averages": tuple(averages),
        "judged_often_samples": 5_000,
    }


class Judged(NamedTuple):
    """How a run is judged.

    Attributes:
        judge: as an Experiment has it; what it needs is read when it is first called.
        ready: () -> nothing; raises what would be raised while training for weights that are not there, and for too few
            samples.
    """

    judge: Judge
    ready: Callable[[], object]


def judged(config: ConfigDict, images: Images) -> Judged:
    """By the values of a config.

    Args:
        config: with `values`.
        images: that it is trained on, read when they are needed.

    Raises:
        ValueError: there are no such features, with the closest name; or a judgement is asked for without any.
        FileNotFoundError: what the run shall be judged against is not there.
    """
    names = tuple(config.judged_features)
    if not names:
        if config.judged_every:
            raise ValueError(f"judged_every={config.judged_every} needs judged_features, such as ('inception',)")
        return Judged(partial(evaluation.judge, references=()), lambda: None)
    judging.check_features(names)
    against = str(Path(config.judged_against).expanduser()) if config.judged_against else ""
    if against and not Path(against).exists():
        raise FileNotFoundError(f"judged_against={against}: no such file of moments, npz file or folder of images")

    @cache
    def measured() -> tuple[Sequence[evaluation.Features], Sequence[evaluation.Score]]:
        if names == PIXELS:
            return (evaluation.pixels,), ()
        return judging.features(names, weights=config.feature_weights or None, resize=config.feature_resize or None)

    @cache
    def references() -> list[evaluation.Reference]:
        of = partial(_reference, against=against, images=images)
        return [of(features) for features in measured()[0]]

    def judge(batches: evaluation.Batches) -> list[evaluation.Row]:
        return evaluation.judge(batches, references=references(), scores=measured()[1])

    in_pixels = cache(lambda: judges.pixel_judge(images()))

    def ready() -> None:
        if names == PIXELS:
            in_pixels()
        for features in measured()[0]:
            dim = features.extract(np.zeros((1, *images().shape), np.uint8)).shape[1]
            if config.judged_often_samples <= dim:
                raise ValueError(
                    f"judged_often_samples={config.judged_often_samples} are too few for a distance in {dim:,}"
                    f" dimensions of {features.name}; give more than {dim:,}"
                )

    if names == PIXELS and not against:
        return Judged(lambda batches: in_pixels()(batches), ready)
    return Judged(judge, ready)


def fields(
    config: ConfigDict,
    images: Images,
    samplers: tuple[Sampler, ...],
    *,
    average: str,
    num_classes: int,
    periodic: tuple[Periodic, ...],
) -> dict[str, Any]:
    """The fields of an Experiment that say how it is judged, at its end and while it trains.

    Args:
        config: with `values`.
        images: that it is trained on.
        samplers: all of which are judged.
        average: the weights that are judged at the end.
        num_classes: 0 if unconditional.
        periodic: what else is done every so many steps.
    """
    found = judged(config, images)
    if config.judged_every:
        often = evaluations(
            samplers,
            found.judge,
            every=config.judged_every,
            averages=tuple(config.judged_averages) or (average,),
            n=config.judged_often_samples,
            num_classes=num_classes,
            ready=found.ready,
        )
        periodic = (*periodic, often)
    return {
        "judge": found.judge,
        "judged_average": average,
        "judged_samples": config.judged_samples,
        "periodic": periodic,
    }


def evaluations(
    samplers: Sequence[Sampler],
    judge: Callable[[evaluation.Batches], list[evaluation.Row]],
    *,
    every: int,
    averages: Sequence[str],
    n: int,
    num_classes: int,
    batch_size: int = 250,
    seed: int = 0,
    ready: Callable[[], object] = lambda: None,
) -> Periodic:
    """Judge samples of several averages every so many steps: rows of workdir/metrics.jsonl, and scalars of the log.

    The loop's iterator of batches is not touched: its threads go on filling their buffers meanwhile. The scalars are
    called `<metric>/<average>`, with the number of network evaluations if there are several samplers.

    Args:
        samplers: ways to sample, all of them each time.
        judge: as an Experiment has it.
        every: period in steps.
        averages: which weights; "params" are those that are trained.
        n: samples of each.
        num_classes: 0 if unconditional.
        batch_size: images in one call.
        seed: of the samples, the same each time.
        ready: called before the first step; raises what would be raised when the judge is first called.
    """

    def run(workdir: Path, step: int, params: dict[str, Params]) -> dict[str, float]:
        scalars: dict[str, float] = {}
        for average in averages:
            for sampler in samplers:
                rows = evaluation.judge_sampler(
                    sampler,
                    params[average],
                    judge,
                    facts={"step": step, "average": average},
                    n=n,
                    seed=seed,
                    num_classes=num_classes,
                    batch_size=batch_size,
                )
                evaluation.keep_rows(workdir, rows)
                told = f"/nfe{sampler.nfe}" if len(samplers) > 1 else ""
                scalars |= {f"{row['metric']}/{average}{told}": float(row["value"]) for row in rows}
        return scalars

    return Periodic(every, run, tuple(averages), ready, name="the evaluation")


def _reference(features: evaluation.Features, *, against: str, images: Images) -> evaluation.Reference:
    def measured() -> evaluation.Reference:
        if against:
            name, batches = against, evaluation.image_batches(against, READ_AT_A_TIME)
        else:
            source = images()
            name, batches = source.name, _batches(source)
        return evaluation.measure_stream(name, features, batches, keep=KEPT).reference

    if not against:
        return measured()
    return evaluation.reference_of(against, features, measured=measured, numbers=judging.numbers)


def _batches(source: data.Source) -> Iterator[np.ndarray]:
    for start in range(0, len(source), READ_AT_A_TIME):
        some: Iterable[int] = range(start, min(start + READ_AT_A_TIME, len(source)))
        yield np.stack([source[index]["image"] for index in some])
