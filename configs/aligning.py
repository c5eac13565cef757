"""What the runs of Align Your Flow share: the flow that is distilled, what it is guided against, the loss.

Not a run.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

import data
from configs import flow_maps, flows, glue, guiding, teachers
from configs.flows import lacking_flow
from losses import align_eulerian, align_lagrangian, curricula, pairs, tangents
from losses.types import Loss, Net
from models import guide
from train import Batch, Context, Params


class Teacher(NamedTuple):
    """A flow that is distilled.

    Attributes:
        velocity: (its parameters, labels) -> v(x_t, t), guided or not.
        params: () -> its parameters; they are read when training starts.
        like: () -> their shapes and types.
        average: the weights that those are.
    """

    velocity: glue.NetOf
    params: Callable[[], Params]
    like: Callable[[], Params]
    average: str


def teacher(run: str, source: data.Source, *, guidance: float = 1.0) -> Teacher:
    """The flow of a run, guided against its null class by a scale, of which 1 is none.

    Without a run a student can be built and looked at, and says what it lacks when it is to be trained. In place of a
    run a config names a flow that is yet to be trained: the student can be planned for.

    Raises:
        FileNotFoundError: if there is no run, or it has no checkpoint, when the parameters are read.
        ValueError: if the run is not of a flow, or of other data, or it is to be guided and never saw the null class.
    """
    if not run:
        return Teacher(lacking_flow, lacking_flow, lacking_flow, average="")
    _, flow, params, like = flows.read(run)
    teachers.check_alike(
        f"the flow in {run}",
        shape=(tuple(flow.shape), tuple(source.shape)),
        num_classes=(flow.num_classes, source.num_classes),
    )
    if guidance != 1 and not flow.guidable:
        raise ValueError(f"guidance {guidance:g} needs a teacher trained with label_dropout, {run} was not")

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        net_of = partial(flow.velocity, params)
        return guiding.classifier_free(net_of, labels, num_classes=flow.num_classes, scale=guidance)

    return Teacher(velocity, params, like, flow.average)


def by_weaker(better: Teacher, weaker: Teacher, *, scale: float) -> Teacher:
    """A flow guided against a weaker one, such as a shorter run of the same config or a smaller network.

    The weaker one's parameters are frozen beside the other's: those of a network of published size are too many to be
    constants of a program, as `guiding.by_weaker` has them.
    """

    def velocity(params: Params, labels: jax.Array | None) -> Net:
        return guide(better.velocity(params["better"], labels), weaker.velocity(params["weaker"], labels), scale)

    def both(read: Callable[[Teacher], Params]) -> Params:
        return {"better": read(better), "weaker": read(weaker)}

    return Teacher(
        velocity,
        lambda: both(lambda teacher: teacher.params()),
        lambda: both(lambda teacher: teacher.like()),
        better.average,
    )


def objective(
    config: ConfigDict, u_of: flow_maps.AverageVelocityOf, teacher: Teacher, *, warmup_steps: int
) -> Callable[[Params, Batch, jax.Array, Context], Loss]:
    """AYF-EMD, or AYF-LMD by config.lagrangian, of the teacher whose parameters are frozen.

    Args:
        config: with lagrangian, to_data, same and tangent_c.
        u_of: the student's mean velocity.
        teacher: whom it follows.
        warmup_steps: until the tangent is whole.
    """
    loss = align_lagrangian if config.lagrangian else align_eulerian

    def of(params: Params, batch: Batch, key: jax.Array, context: Context) -> Loss:
        labels = batch["label"]
        return loss(
            u_of(params, labels),
            batch["image"],
            key,
            velocity=teacher.velocity(context.frozen, labels),
            pairs=partial(pairs.ordered, to_data=config.to_data, same=config.same),
            warmup=curricula.tangent_warmup(context.step, steps=warmup_steps),
            tangent=partial(tangents.normalised, c=config.tangent_c),
        )

    return of
