"""Before a run: one step of it here, or its step compiled for devices that are elsewhere."""

import json
import sys
from pathlib import Path

import jax

import train

from .given import FLAGS, build, required_config
from .usage import UsageError


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
