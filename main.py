"""One entry point for every run.

    python main.py --config configs/digits.py --workdir runs/digits              train, then judge
    python main.py --config configs/digits.py --mode=check                       look before a run; writes nothing
    python main.py --config configs/imagenet256_sit.py --mode=plan --topology=v5e:4x4     what a step needs, on no TPU
    python main.py --workdir runs/digits --mode=sample --n=100 --nfe=2           draw samples of a run
    python main.py --workdir runs/digits --mode=eval --n=2000                    judge a run again
    python main.py --workdir runs/autoencoder --mode=encode --out=runs/latents   encode its images for models of latents
    python main.py --workdir runs/flow --mode=pairs --n=20000 --out=runs/pairs  join noise with data, for reflow

Any value of a config can be given as --config.NAME=VALUE. The same command resumes an interrupted run; run on several
machines at once it is one run of several processes (docs/reliability.md).
"""

import difflib
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from PIL import Image

import eval as evaluation
import train
from configs import flows, latents

ROOT = Path(__file__).parent
CODE = ("main.py", "losses", "samplers", "models", "data", "train", "eval", "configs")
MODES = ("train", "sample", "eval", "check", "plan", "encode", "pairs")
COLUMNS = 10  # of a grid; a class-conditional one has a row for each class instead

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The run: a file in configs/, with values overridden by --config.NAME.")
flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, logs, pictures, metrics.")
flags.DEFINE_string("mode", "train", f"One of {', '.join(MODES)}.")
flags.DEFINE_integer(
    "n", None, "sample, eval: number of samples; the config's judged_samples by default. pairs: of pairs."
)
flags.DEFINE_integer("seed", 0, "sample, eval, pairs: seed of the samples, or of the noise.")
flags.DEFINE_integer("nfe", None, "sample, eval: the sampler with this many network evaluations; all by default.")
flags.DEFINE_string("average", None, "Not train: weight average to use, or params; the config's by default.")
flags.DEFINE_integer("step", None, "Not train: checkpoint to use; the newest by default.")
flags.DEFINE_string("out", None, "encode, pairs: folder of the latents or pairs. plan: file for its numbers, JSON.")
flags.DEFINE_string("topology", None, "plan: a TPU slice that need not be here, v5p:4x4x4; default: the devices here.")
flags.DEFINE_integer("compiles", 6, "plan: most compilations to find the largest batch that fits; 0 for none.")
flags.DEFINE_integer("solver_steps", None, "pairs: Heun steps; 32 of a flow, 18 of a diffusion model by default.")
flags.DEFINE_bool("invert", False, "pairs: take real images up to noise, all of them by default, not noise to images.")
flags.DEFINE_bool("eight_bit", False, "pairs: store images in 8 bits, which loses some of what joins them with noise.")
flags.DEFINE_bool("overwrite", False, "sample: replace existing files.")


# ---- Going on with a run: nothing of this is needed by the same command again ----
flags.DEFINE_integer("restore_step", None, "train: go on from this checkpoint; newer ones are moved to set_aside.")
flags.DEFINE_bool("allow_fallback", False, "train: go back past damaged checkpoints; they are moved to set_aside.")
flags.DEFINE_bool("allow_data_change", False, "train: go on with other data, another order or batch size.")
flags.DEFINE_bool("allow_config_change", False, "train: go on with other values of the config; the arrays must fit.")
flags.DEFINE_multi_enum("reset", [], list(train.PARTS), "train: go on with this part of the state as at the start.")
# ---- Several processes ----
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if several processes are started by hand.")
flags.DEFINE_integer("processes", None, "How many there are.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
flags.DEFINE_bool("distributed", None, "Look for other processes, as SLURM, Open MPI and GKE's tell by themselves.")
flags.DEFINE_integer("start_timeout_seconds", 300, "How long processes wait for each other.", lower_bound=1)
flags.DEFINE_integer("heartbeat_seconds", 100, "A process not heard of for so long ends the others.", lower_bound=10)

SEVERAL_PROCESSES = ("train", "sample", "eval")  # modes that share their work


class UsageError(Exception):
    """Something the user gave cannot be used, or what happened is told in one sentence; shown without a traceback."""


def main(argv: list[str]) -> None:
    """Run the mode that was asked for."""
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # the INFO lines of the libraries would drown the progress line
    if len(argv) > 1:
        raise UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    modes = (run_train, run_sample, run_eval, run_check, run_plan, run_encode, run_pairs)
    run = dict(zip(MODES, modes, strict=True)).get(FLAGS.mode)
    if run is None:
        closest = difflib.get_close_matches(FLAGS.mode, MODES, n=1)
        raise UsageError(
            f"unknown mode {FLAGS.mode!r}; modes are {', '.join(MODES)}"
            + "".join(f"; did you mean {name}?" for name in closest)
        )
    join_processes()
    try:
        run()
    except (UsageError, flags.Error):
        raise
    except Exception:
        if jax.process_count() == 1:
            raise
        # At an ordinary end this process would wait for the others, and they for it.
        traceback.print_exc()
        print(AFTER_ERROR.format(jax.process_index(), FLAGS.heartbeat_seconds), file=sys.stderr, flush=True)
        os._exit(1)


AFTER_ERROR = (
    "error: process {} ends; if it names a connection, another process has died. The others end within {} s. Start all"
    " of them again by the same command: they go on from the newest checkpoint."
)


def join_processes() -> None:
    """Become one of several processes, if there are several."""
    given = train.Processes(FLAGS.coordinator, FLAGS.processes, FLAGS.process_id)
    try:
        found = train.find_processes(given, distributed=FLAGS.distributed)
        if found is None:
            return
        train.start_processes(
            found, timeout_seconds=FLAGS.start_timeout_seconds, heartbeat_seconds=FLAGS.heartbeat_seconds
        )
    except train.Refused as error:
        raise UsageError(str(error)) from error
    if jax.process_count() > 1 and FLAGS.mode not in SEVERAL_PROCESSES:
        raise UsageError(f"--mode={FLAGS.mode} is the work of one process; {', '.join(SEVERAL_PROCESSES)} are shared")
    train.say(
        f"{jax.process_count()} processes, {jax.device_count()} devices; if one process dies, the others end within "
        f"{FLAGS.heartbeat_seconds} s"
    )


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the command line; what a config does not have or refuses is a usage error and not a traceback."""
    try:
        return FLAGS(argv)
    except flags.Error as error:
        told, refused = str(error), "\nValueError: "  # below a traceback, where get_config has raised it
        raise UsageError(told.rpartition(refused)[2].strip()) from error
    except AttributeError as error:
        # ml_collections gives the closest name in a text of its own, quoted twice.
        told = str(error).replace("\\n", ". ").replace("\\", "").strip("'\"")
        raise UsageError(f"no such config value: {told}") from error


# ---- Modes ---------------------------------------------------------------------------------------------------------


def run_train() -> None:
    """Train or go on training; then judge the samples, draw them, and print the table."""
    with train.unread_output():
        finished, experiment, workdir = trained_run()
        if finished.interrupted:
            train.say(f"stopped at step {int(finished.state.step)} on request; the same command goes on from there")
            return
        if finished.steps_taken == 0:
            train.say(f"{workdir} had finished at step {int(finished.state.step)}")
        report(experiment, workdir, int(finished.state.step))


def trained_run() -> tuple[train.Finished, train.Experiment, Path]:
    """Train, once everything that can be checked before has been."""
    workdir = required_workdir()
    config, config_file = required_config()
    code = train.code_hashes(ROOT, CODE)
    record = train.Record(config_file, config.to_dict(), train.code_hash(code))
    resume = train.Resume(
        step=FLAGS.restore_step,
        fallback=FLAGS.allow_fallback,
        data_change=FLAGS.allow_data_change,
        config_change=FLAGS.allow_config_change,
        reset=tuple(sorted(set(FLAGS.reset))),
    )
    try:
        values = {f"--config.{name}": value for name, value in record.config.items()}
        asked = {"--config": config_file, "--workdir": str(workdir), **resume._asdict()}
        train.check_alike({**asked, **values, **train.circumstances()["packages"], **code})
        experiment = build(config, config_file)
        train.validate(experiment)
        next(experiment.batches(0))  # reads and checks real data before anything is compiled or written
        for read in filter(None, (experiment.frozen, experiment.initial)):
            read()  # a teacher that is not there is told now
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(str(error)) from error
    try:
        return train.fit(experiment, workdir, record=record, resume=resume), experiment, workdir
    except (train.Refused, train.NonFiniteError, train.SaveError, train.OutOfMemory) as error:
        raise UsageError("\n".join([str(error), *getattr(error, "__notes__", [])])) from error


def report(experiment: train.Experiment, workdir: Path, step: int) -> None:
    """Judge the samples of a finished run and draw them, unless that was done before; print the table."""
    metrics = workdir / "metrics.jsonl"
    rows = evaluation.read_rows(metrics) if metrics.exists() else []
    rows = json.loads(train.gather_texts(json.dumps(rows))[0])  # all processes go by what the first one sees
    rows = [row for row in rows if is_final(row, experiment, step)]
    if {row["sampler"] for row in rows} != {sampler.name for sampler in experiment.samplers}:
        rows = evaluation.evaluate(
            experiment, workdir, n=experiment.judged_samples, seed=0, average=experiment.judged_average, batch_size=500
        )
        draw_pictures(experiment, workdir)
    if train.is_first():
        evaluation.print_report(rows)
        print("pictures and numbers:", *(str(path) for path in sorted(workdir.glob("*.png"))), metrics)


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


def run_check() -> None:
    """Print the resolved run and take one step on real data; nothing is written."""
    config, config_file = required_config()
    print(f"config      {config_file}")
    for name, value in sorted(config.to_dict().items()):
        print(f"            {name} = {value}")
    sys.stdout.flush()  # each part before the work that may fail, or take long
    experiment = build(config, config_file)
    print(f"data        {experiment.fingerprint}", flush=True)
    try:
        print(f"parameters  {train.count_parameters(experiment):,}", flush=True)
        facts = train.check(experiment)
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(str(error)) from error
    print(f"devices     {facts.devices}")
    print(
        f"memory      {facts.state_bytes / 2**20:,.1f} MiB state + {facts.step_bytes / 2**20:,.1f} MiB step, a device"
    )
    print(f"step        {facts.step_seconds:.3f} s, compiled in {facts.compile_seconds:.1f} s")
    print("loss terms  " + ", ".join(f"{name} {value:.4g}" for name, value in facts.scalars.items()))
    print("nothing was written")


def run_plan() -> None:
    """Compile the step for a slice that need not be here, and print what it will need and take."""
    if FLAGS.topology:
        jax.config.update("jax_platforms", "cpu")  # nothing runs; a TPU that is here stays free
    config, config_file = required_config()
    try:
        devices = train.topology_devices(FLAGS.topology) if FLAGS.topology else jax.devices()
        experiment = build(config, config_file)
        print(f"config      {config_file}, {train.count_parameters(experiment):,} parameters", flush=True)
        first = train.plan(experiment, devices)
        print(train.plan_text.text(first), flush=True)
        found = {"plan": train.plan_text.as_json(first), "largest_batch": None}
        if FLAGS.compiles and first.available:
            print("largest batch that fits:", flush=True)

            def plan_of(batch: int) -> train.Plan:
                other = config.copy_and_resolve_references()
                other.batch_size = batch * experiment.batch_size // first.batch
                return train.plan(build(other, config_file), devices)

            fit, too_many = train.largest_batch(
                plan_of, first, compiles=FLAGS.compiles,
                report=lambda plan: print(train.plan_text.line(plan), flush=True),
            )  # fmt: skip
            limit = f"{too_many} do not" if too_many else "more were not tried"
            print(f"            {fit} a device fit, {limit}")
            found["largest_batch"] = {"fits": fit, "does_not_fit": too_many}
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise UsageError(str(error)) from error
    if FLAGS.out:
        Path(FLAGS.out).write_text(json.dumps(found, indent=2) + "\n")


def run_encode() -> None:
    """Encode the images of a trained autoencoder, once, for models that are trained on its latents."""
    workdir = required_workdir()
    if not FLAGS.out:
        raise UsageError("--mode=encode needs --out, the folder of the latents")
    try:
        record = latents.encode(workdir, FLAGS.out, average=FLAGS.average, step=FLAGS.step)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    size = " x ".join(str(side) for side in record["shape"])
    print(f"{FLAGS.out}: {record['count']:,} latents of {size}, standard deviations by channel", *record["std"])


def run_pairs() -> None:
    """Join noise with data along a trained flow, for reflow; or real images with noise."""
    workdir = required_workdir()
    if not FLAGS.out:
        raise UsageError("--mode=pairs needs --out, the folder of the pairs")
    try:
        record = flows.make_pairs(
            workdir,
            FLAGS.out,
            n=FLAGS.n,
            seed=FLAGS.seed,
            inverted=FLAGS.invert,
            eight_bit=FLAGS.eight_bit,
            solver_steps=FLAGS.solver_steps,
            average=FLAGS.average,
            step=FLAGS.step,
        )
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    print(f"{FLAGS.out}: {record['count']:,} {record['name']}")


# ---- Pictures --------------------------------------------------------------------------------------------------------


def draw_pictures(experiment: train.Experiment, workdir: Path) -> None:
    """Grids of every sampler beside real images, unless samples are latents; and the loss curves."""
    if train.is_first() and (log := train.read_log(workdir)):  # a run of no steps has none
        evaluation.loss_curves(log).savefig(workdir / "loss.png")
    params, _ = experiment.restore(workdir, experiment.judged_average, None)
    if not draws_pictures(experiment, params):
        return
    classes = experiment.num_classes or COLUMNS
    labels = np.arange(classes * COLUMNS) % classes

    def panel(images: np.ndarray) -> Image.Image:
        ordered = evaluation.by_class(images, labels, num_classes=classes, columns=COLUMNS)
        return evaluation.grid(ordered, classes, COLUMNS)

    panels = []
    for sampler in experiment.samplers:
        images, _ = evaluation.draw_all(
            sampler, params, n=len(labels), seed=0, num_classes=experiment.num_classes, batch_size=500
        )
        told = told_apart(sampler, experiment.samplers).replace("_", " ")
        steps = f"{sampler.nfe} step{'s' * (sampler.nfe > 1)}{told}" if sampler.nfe else sampler.name
        panels.append((steps, panel(images)))
    if not train.is_first():
        return
    real = real_images(experiment, labels)
    if real.dtype == np.uint8:  # what a model of latents is trained on is no picture
        panels.append(("real", panel(real)))
    evaluation.labelled_panels(panels).save(workdir / "samples.png")


def draws_pictures(experiment: train.Experiment, params: train.Params) -> bool:
    """Whether samples are grey or coloured images, and not latents or vectors."""
    keys, labels = jax.random.split(jax.random.key(0), 2), np.zeros(2, np.int32)
    shape = jax.eval_shape(experiment.samplers[0].sample, params, keys, labels).shape
    return len(shape) == 4 and shape[-1] in (1, 3)


def real_images(experiment: train.Experiment, labels: np.ndarray) -> np.ndarray:
    """What the model is trained on, of these labels, or any if it is unconditional: uint8 images, or latents."""
    waiting: dict[int, list[np.ndarray]] = {int(label): [] for label in labels}
    for batch in experiment.batches(0):
        of = batch["label"] if experiment.num_classes else np.resize(np.unique(labels), len(batch["image"]))
        for image, label in zip(batch["image"], of, strict=True):
            waiting[int(label)].append(image)
        if all(len(images) >= len(labels) for images in waiting.values()):
            break
    return np.stack([waiting[int(label)].pop() for label in labels])


# ---- What the user gave ----------------------------------------------------------------------------------------------


def required_workdir() -> Path:
    """The folder of the run."""
    if not FLAGS.workdir:
        raise UsageError(f"--mode={FLAGS.mode} needs --workdir")
    return Path(FLAGS.workdir)


def required_config() -> tuple[ConfigDict, str]:
    """The config with its overrides, and its file relative to the repository where it lies inside."""
    if FLAGS.config is None:
        available = ", ".join(sorted(f"configs/{p.name}" for p in (ROOT / "configs").glob("*.py") if p.stem[0] != "_"))
        raise UsageError(f"--mode={FLAGS.mode} needs --config, one of {available}")
    # A run published in several sizes is given as FILE.py:SIZE, and its config holds the values of that size.
    file = config_flags.get_config_filename(FLAGS["config"]).split(".py:")[0].removesuffix(".py")
    path = Path(f"{file}.py").resolve()
    try:
        FLAGS.config.to_dict()
    except OSError as error:  # a file that is not there is told when it is first looked at
        raise UsageError(str(error)) from error
    return FLAGS.config, str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def build(config: ConfigDict, config_file: str) -> train.Experiment:
    """The experiment of a config."""
    try:
        return evaluation.load_module(ROOT / config_file).build(config)
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"{config_file}: {error}") from error


def load(workdir: Path) -> Any:
    """The experiment of a trained run, from its run.json."""
    try:
        return evaluation.load_experiment(workdir)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def told_apart(sampler: train.Sampler, samplers: Sequence[train.Sampler]) -> str:
    """What tells a sampler from others of as many evaluations, such as "_guidance_1.5"; "" if there are none."""
    alike = sum(other.nfe == sampler.nfe for other in samplers) > 1
    return "_" + sampler.name.rpartition(", ")[2].replace(" ", "_") if alike else ""


def chosen_samplers(experiment: train.Experiment) -> tuple[train.Sampler, ...]:
    """The samplers with --nfe evaluations, or all."""
    chosen = tuple(s for s in experiment.samplers if FLAGS.nfe in (None, s.nfe))
    if not chosen:
        raise UsageError(f"no sampler with nfe {FLAGS.nfe}; there are {[s.nfe for s in experiment.samplers]}")
    return chosen


def is_final(row: dict[str, Any], experiment: train.Experiment, step: int) -> bool:
    """Whether a row of metrics.jsonl is one that the end of this training writes."""
    expected = {"step": step, "average": experiment.judged_average, "seed": 0, "n": experiment.judged_samples}
    return all(row.get(name) == value for name, value in expected.items())


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=parse_flags)
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None
