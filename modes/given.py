"""What the user gave on the command line."""

from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

import eval as evaluation
import train

from .config_files import available, check_types
from .usage import ROOT, UsageError

FLAGS = flags.FLAGS


def required_workdir() -> Path:
    """The folder of the run."""
    if not FLAGS.workdir:
        raise UsageError(f"--mode={FLAGS.mode} needs --workdir")
    workdir = Path(FLAGS.workdir)
    if workdir.exists() and not workdir.is_dir():
        raise UsageError(f"--workdir={workdir} is a file; give the folder of a run")
    return workdir


def required_config() -> tuple[ConfigDict, str]:
    """The config with its overrides, and its file relative to the repository where it lies inside."""
    if FLAGS.config is None:
        raise UsageError(f"--mode={FLAGS.mode} needs --config, one of {', '.join(available())}")
    # A run published in several sizes is given as FILE.py:SIZE, and its config holds the values of that size.
    given = config_flags.get_config_filename(FLAGS["config"])
    file, size = evaluation.config_and_size(given) or (Path(given), "")
    path = file.resolve()
    check_types(FLAGS.config, path, size)
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


def chosen_samplers(experiment: train.Experiment) -> tuple[train.Sampler, ...]:
    """The samplers with --nfe evaluations, or all."""
    chosen = tuple(s for s in experiment.samplers if FLAGS.nfe in (None, s.nfe))
    if not chosen:
        raise UsageError(f"no sampler with nfe {FLAGS.nfe}; there are {[s.nfe for s in experiment.samplers]}")
    return chosen
