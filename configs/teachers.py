"""Diffusion models and flows as teachers: how a student's config takes the one that a run has trained.

A student gives a workdir; the run in it is rebuilt from its own config and checked before anything is read.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

import jax
from ml_collections import ConfigDict

import data
import eval as evaluation
import train
from configs import glue, guiding, trained_models
from configs.forms import UNSAID, Form
from configs.trained_models import Diffusion
from losses import Path as NoisePath
from losses.types import Net
from models import preconditioning
from train.state import check_initial


class Teacher(NamedTuple):
    """A trained diffusion model or flow: how its denoiser is made of its network's parameters, and how they are read.

    Attributes:
        diffusion: what it is.
        params: () -> the parameters of its network.
        like: () -> their shapes and types; nothing is read but a converted network.
    """

    diffusion: Diffusion
    params: Callable[[], train.Params]
    like: Callable[[], train.Params]


def teacher(
    workdir: str,
    *,
    shape: Sequence[int],
    num_classes: int,
    sigma_data: float,
    guidance: float = 1.0,
    form: Form | None = None,
    starts: bool = False,
) -> Teacher:
    """The diffusion model trained in a workdir, checked against the student it shall teach.

    Without a workdir the run can be built and looked at, and says what it lacks when it is to be trained. A student is
    built as its teacher, by `built_as` and `network_of`, `trigflow_network_of` or `velocity_of`, or it says the one
    `form` that it has. If it only `starts` from the weights there, the run may be of a consistency model, which has no
    denoiser to follow. In place of a workdir a config, such as configs/imagenet512_trigflow.py:XXL, names a teacher
    that is yet to be trained: the run can be planned for.

    Raises:
        FileNotFoundError: if there is no run, or it has no checkpoint, when the parameters are read.
        ValueError: if the run is not of a diffusion model or a flow, or of other data, or preconditioned for another
            sigma_data, or outputs what a student of one form does not, or guidance is asked of a model that never saw
            the null class.
    """
    if not workdir:
        return Teacher(_absent(tuple(shape), num_classes, sigma_data), _no_teacher, _no_teacher)
    config_file, config, trained = run_or_config(workdir)
    module = evaluation.load_module(config_file)
    diffusion = _said(module, config, workdir, starts=starts)
    check_alike(
        f"the teacher in {workdir}",
        shape=(tuple(diffusion.shape), tuple(shape)),
        num_classes=(diffusion.num_classes, num_classes),
        sigma_data=(sigma_data if diffusion.sigma_data is None else diffusion.sigma_data, sigma_data),
    )
    if form not in (None, diffusion.form):
        raise ValueError(
            f"the network in {workdir} predicts otherwise than this run's, which cannot start from its weights;"
            " those of the _cd, _ect, _ctm and _scm configs of CIFAR-10 and ImageNet can"
        )
    if guidance != 1 and not diffusion.guidable:
        raise ValueError(f"guidance {guidance} needs a teacher trained with label_dropout, {workdir} was not")

    def params() -> train.Params:
        if not trained:
            _no_teacher()
        return diffusion.network(train.restore_average(workdir, diffusion.average)[0])

    return Teacher(diffusion, params, partial(shapes, module, config, diffusion.network, params))


def run_or_config(given: str) -> tuple[Path, ConfigDict, bool]:
    """The file and the values of a run, or of a config FILE.py or FILE.py:SIZE; and whether it is a run.

    Raises:
        FileNotFoundError: if there is neither.
    """
    planned = evaluation.config_and_size(given)
    if planned is None:
        return *evaluation.read_run(given), True
    file, size = planned
    get_config = evaluation.load_module(file).get_config
    return file, get_config(size) if size else get_config(), False


def shapes(
    module: ModuleType,
    config: ConfigDict,
    network: Callable[[train.Params], train.Params],
    params: Callable[[], train.Params],
) -> train.Params:
    """Shapes and types of the `network` of a run of these values; its `params` are read only if it was converted."""
    experiment = module.build(config)
    if not isinstance(experiment, train.Experiment):
        return jax.eval_shape(params)
    return network(jax.eval_shape(experiment.init, jax.random.key(0)))


def check_alike(what: str, **values: tuple[Any, Any]) -> None:
    """Compare what another run has with what this one has, pairs by their names.

    Raises:
        ValueError: they differ, with the first name and both values.
    """
    for name, (theirs, ours) in values.items():
        if theirs != ours:
            raise ValueError(f"{what} has {name} {theirs}, this run {ours}")


def _said(module: ModuleType, config: ConfigDict, workdir: str, *, starts: bool) -> Diffusion:
    """What a run says of its network."""
    name = Path(str(module.__file__)).name
    if hasattr(module, "diffusion"):
        return cast(Diffusion, module.diffusion(config))
    if hasattr(module, "flow"):
        return trained_models.of_flow(module.flow(config))
    if hasattr(module, "trajectory"):
        raise ValueError(
            f"the network in {workdir} is a trajectory model's, told two times, which no student of others is;"
            " reflow trains on pairs of it, by --mode=pairs, and the _ctm configs go on from it, by --config.start_run"
        )
    if not hasattr(module, "consistency_model"):
        raise ValueError(f"the run in {workdir} is of {name}, which does not train a diffusion model or a flow")
    if not starts:
        raise ValueError(
            f"the network in {workdir} is a consistency model: it jumps to data and has no denoiser that a student"
            " could follow; runs that need no teacher can start from it, such as those of the _ect configs"
        )
    return cast(Diffusion, module.consistency_model(config))


def network_of(teacher: Teacher, model: glue.Backbone, sigma_data: float) -> Callable[..., Net]:
    """`glue.bind` of a student's network, as the F that EDM's preconditioning takes, whatever its teacher predicts."""
    return lambda *args, **options: teacher.diffusion.form.edm(glue.bind(model, *args, **options), sigma_data)


def trigflow_network_of(teacher: Teacher, model: glue.Backbone, sigma_data: float) -> Callable[..., Net]:
    """The same as the F that TrigFlow's takes."""
    return lambda *args, **options: teacher.diffusion.form.trigflow(glue.bind(model, *args, **options), sigma_data)


def velocity_of(teacher: Teacher, own: Callable[[Net], Net], sigma_data: float) -> Callable[[Net], Net]:
    """(network) -> velocity on the straight path: `own`, or that of the teacher from whose weights it starts."""
    form = teacher.diffusion.form
    return own if form is UNSAID else lambda F: preconditioning.edm_velocity(form.edm(F, sigma_data), sigma_data)


def built_as(teacher: Teacher, model: Any) -> Any:
    """A student that is built as its teacher, of whose weights it starts."""
    return model.clone(**teacher.diffusion.built)


def start(teacher_run: str, teacher: Teacher) -> dict[str, Any]:
    """The field of an Experiment that starts it from the teacher's weights; without a teacher it starts at random."""
    return {"initial": teacher.params} if teacher_run else {}


def guided(
    teacher: Teacher, frozen: train.Params, labels: jax.Array | None, path: NoisePath, *, scale: float | jax.Array
) -> Net:
    """The teacher's denoiser on a path, guided against its null class by one scale or one for each example."""
    return guiding.classifier_free(
        lambda labels: teacher.diffusion.on_path(frozen, labels, path),
        labels,
        num_classes=teacher.diffusion.num_classes,
        scale=scale,
    )


def extended_start(
    model: glue.Backbone, source: data.Source, initial: train.Params, trained: train.Params
) -> train.Params:
    """A teacher's parameters in a student that is told more than its teacher: a guidance scale, or a second time.

    The last layer of a scale is zero at first, so that such a student starts as its teacher at every scale. That of a
    second time is not, as in CTM's code: the student starts near its teacher.

    Args:
        model: the student, with `guided=True` or `second_time=True` or both.
        source: of the examples of both.
        initial: the student's own parameters, of which those of what it alone is told remain.
        trained: the teacher's.

    Raises:
        ValueError: naming the leaves in which the teacher differs from a student that is told no more.
    """
    told_the_same = glue.initialiser(model.clone(guided=False, second_time=False), source)
    check_initial(trained, jax.eval_shape(told_the_same, jax.random.key(0)))
    given = dict(jax.tree_util.tree_leaves_with_path(trained))
    return jax.tree_util.tree_map_with_path(lambda path, leaf: given.get(path, leaf), initial)


def _absent(shape: tuple[int, ...], num_classes: int, sigma_data: float) -> Diffusion:
    def on_path(params: train.Params, labels: jax.Array | None, path: NoisePath) -> Net:
        return _no_teacher()

    return Diffusion(on_path, UNSAID, shape, num_classes, sigma_data, average="", guidable=True)


def _no_teacher() -> Any:
    raise ValueError("this run needs a trained diffusion model: give its workdir with --config.teacher_run=DIR")
