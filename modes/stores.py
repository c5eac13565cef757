"""What a trained run makes for others to be trained on: latents of images, pairs of noise and data."""

from configs import flows, latents

from .given import FLAGS, required_workdir
from .usage import UsageError


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
