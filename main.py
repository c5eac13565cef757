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
import itertools
import os
import sys
import traceback

import jax
from absl import app, flags, logging
from ml_collections import config_flags

import train
from modes import before, samples, stores, training
from modes.config_files import check_file
from modes.given import FLAGS
from modes.usage import UsageError

MODES = {
    "train": training.run_train,
    "sample": samples.run_sample,
    "eval": samples.run_eval,
    "check": before.run_check,
    "plan": before.run_plan,
    "encode": stores.run_encode,
    "pairs": stores.run_pairs,
}

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
flags.DEFINE_integer("interrupted_code", 0, "train: exit code of a run that was stopped on request, for launchers.")
flags.DEFINE_integer("profiler_port", None, "train: where a profiler may ask this process for a trace.", 1, 65535)
flags.DEFINE_multi_enum("reset", [], list(train.PARTS), "train: go on with this part of the state as at the start.")
# ---- Several processes ----
flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, if several processes are started by hand.")
flags.DEFINE_integer("processes", None, "How many there are.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
flags.DEFINE_bool("distributed", None, "Look for other processes, as SLURM, Open MPI and GKE's tell by themselves.")
flags.DEFINE_integer("start_timeout_seconds", 300, "How long processes wait for each other.", lower_bound=1)
flags.DEFINE_integer("heartbeat_seconds", 100, "A process not heard of for so long ends the others.", lower_bound=10)

READ_BY = {
    "config": ("train", "check", "plan"),
    "n": ("sample", "eval", "pairs"),
    "seed": ("sample", "eval", "pairs"),
    "nfe": ("sample", "eval"),
    **dict.fromkeys(("average", "step"), ("sample", "eval", "encode", "pairs")),
    "out": ("plan", "encode", "pairs"),
    **dict.fromkeys(("topology", "compiles"), ("plan",)),
    **dict.fromkeys(("solver_steps", "invert", "eight_bit"), ("pairs",)),
    "overwrite": ("sample",),
    **dict.fromkeys(("restore_step", "reset", "interrupted_code", "profiler_port"), ("train",)),
    **dict.fromkeys(("allow_fallback", "allow_data_change", "allow_config_change"), ("train",)),
}
"""Flags that not all modes read, by those that do."""

SEVERAL_PROCESSES = ("train", "sample", "eval")  # modes that share their work


def main(argv: list[str]) -> None:
    """Run the mode that was asked for."""
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # the INFO lines of the libraries would drown the progress line
    if len(argv) > 1:
        raise UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    run = MODES.get(FLAGS.mode)
    if run is None:
        closest = difflib.get_close_matches(FLAGS.mode, MODES, n=1)
        raise UsageError(
            f"unknown mode {FLAGS.mode!r}; modes are {', '.join(MODES)}"
            + "".join(f"; did you mean {name}?" for name in closest)
        )
    check_read()
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


def check_read() -> None:
    """Refuse flags that this mode does not read, which would change nothing without a word."""
    for name, modes in READ_BY.items():
        if FLAGS[name].present and FLAGS.mode not in modes:
            told = {
                "config": "; a run's own config is in its run.json",
                "seed": "; that of training is --config.seed",
            }.get(name, "")
            raise UsageError(f"--{name} is read by --mode={', '.join(modes)} and not by {FLAGS.mode}{told}")


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
    for argument, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        name, given, value = argument.partition("=")
        if name in ("--config", "-config"):
            check_file(value if given else following)
    try:
        return FLAGS(argv)
    except flags.Error as error:
        told, refused = str(error), "\nValueError: "  # below a traceback, where get_config has raised it
        raise UsageError(told.rpartition(refused)[2].strip()) from error
    except AttributeError as error:
        # ml_collections gives the closest name in a text of its own, quoted twice.
        told = str(error).replace("\\n", ". ").replace("\\", "").strip("'\"").replace("'.", ".", 1)
        raise UsageError(f"no such config value: {told}") from error


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=parse_flags)
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None
