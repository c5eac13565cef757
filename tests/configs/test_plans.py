"""What configs say of batches and teachers before either is read."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from configs import digits, glue, imagenet512_scm_distillation
from tests.configs.made_up import module, small
from train import Context
from train.plan import batch_shapes, frozen_shapes


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), dict(tree))


def test_the_batch_of_images_is_known_before_it_is_read():
    experiment = digits.build(digits.get_config())
    assert shapes(batch_shapes(experiment)) == shapes(next(experiment.batches(0)))


def test_a_student_is_planned_for_with_the_config_of_its_teacher():
    config = imagenet512_scm_distillation.get_config("S")
    config.teacher_run = "configs/imagenet512_trigflow.py:S"
    experiment = imagenet512_scm_distillation.build(config)
    teacher = sum(leaf.size for leaf in jax.tree.leaves(frozen_shapes(experiment)))
    assert 279e6 < teacher < 281e6  # 280 million in table 2 of EDM2
    batch = batch_shapes(experiment)
    assert (batch["image"].shape, batch["image"].dtype) == ((2048, 64, 64, 4), np.float32)
    with pytest.raises(ValueError, match="this run needs a trained diffusion model"):
        experiment.frozen()


def test_what_is_computed_again_is_named_among_what_there_is():
    with pytest.raises(ValueError, match="remat is 'some', it must be one of none, dots, full"):
        glue.remat("some")


@pytest.mark.usefixtures("small_data")
def test_noise_is_paired_on_the_devices_that_a_step_is_for():
    """Which need not be here."""
    experiment = module("latents_ilct").build(small("latents_ilct", groups=4))
    params = jax.eval_shape(experiment.init, jax.random.key(0))
    batch = jax.eval_shape(experiment.prepare, jax.random.key(0), dict(batch_shapes(experiment)))

    def loss(params, batch):
        context = Context(jax.numpy.zeros((), int), None, {})
        return experiment.objective(params, batch, jax.random.key(0), context)

    slice_ = AbstractMesh((2, 2, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    with jax.sharding.use_abstract_mesh(slice_):
        spread = str(jax.make_jaxpr(loss)(params, batch))
    assert "shard_map" in spread
    assert "shard_map" not in str(jax.make_jaxpr(loss)(params, batch))
