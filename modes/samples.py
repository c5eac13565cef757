"""Samples of a trained run: drawn into files, or judged."""

import eval as evaluation
import train

from .given import FLAGS, chosen_samplers, load, required_workdir
from .pictures import COLUMNS, draws_pictures, told_apart
from .usage import UsageError


def run_sample() -> None:
    """Draw samples of a trained run into an npz and a grid."""
    workdir = required_workdir()
    experiment = load(workdir)
    average = FLAGS.average or experiment.judged_average
    n = experiment.judged_samples if FLAGS.n is None else FLAGS.n
    try:
        params, step = experiment.restore(workdir, average, FLAGS.step)
        if not draws_pictures(experiment, params):
            raise UsageError(
                f"samples of the run in {workdir} are latents, which cannot be written as images; where it is a "
                "converted network give `autoencoder` in its run.json, a folder of diffusers, to decode them"
            )
        for sampler in chosen_samplers(experiment):
            images, labels = evaluation.draw_all(
                sampler, params, n=n, seed=FLAGS.seed, num_classes=experiment.num_classes, batch_size=500
            )
            if not train.is_first():
                continue
            told = told_apart(sampler, experiment.samplers)
            name = f"samples_nfe{sampler.nfe}{told}_step{step}_{average.replace(':', '_')}_seed{FLAGS.seed}_n{n}"
            path = workdir / f"{name}.npz"
            evaluation.write_samples(path, images, labels, overwrite=FLAGS.overwrite)
            columns = min(experiment.num_classes or COLUMNS, n)
            evaluation.grid(images, min(n // columns, COLUMNS), columns).save(workdir / f"{name}.png")
            print(path, workdir / f"{name}.png")
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def run_eval() -> None:
    """Judge samples of a trained run, append the rows to metrics.jsonl, and print the table."""
    workdir = required_workdir()
    experiment = load(workdir)
    try:
        rows = evaluation.evaluate(
            experiment,
            workdir,
            n=experiment.judged_samples if FLAGS.n is None else FLAGS.n,
            seed=FLAGS.seed,
            average=FLAGS.average or experiment.judged_average,
            batch_size=500,
            samplers=chosen_samplers(experiment),
            step=FLAGS.step,
        )
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    if train.is_first():
        evaluation.print_report(rows)
