import jax
import numpy as np
import pytest

from configs import digits_lcf
from tests.configs.made_up import module, small
from train import restore_average
from train.state import check_initial


def test_it_starts_from_the_averaged_weights_of_an_lcm(runs):
    workdir = str(runs("digits_lcm"))
    experiment = digits_lcf.build(small("digits_lcf", teacher_run=workdir))
    assert experiment.initial is not None
    initial = experiment.initial()
    check_initial(initial, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    jax.tree.map(np.testing.assert_array_equal, initial, restore_average(workdir, "power_0.05")[0])
    assert experiment.frozen() is None


def test_a_run_that_is_no_lcm_is_refused_by_name(runs):
    with pytest.raises(ValueError, match=r"is of digits_teacher\.py; only one of digits_lcm\.py is fine-tuned here"):
        digits_lcf.build(small("digits_lcf", teacher_run=str(runs("digits_teacher"))))


def test_an_lcm_that_is_preconditioned_otherwise_is_refused_with_both_values(runs):
    with pytest.raises(ValueError, match=r"has sigma_data 0\.75, this run 0\.5"):
        digits_lcf.build(small("digits_lcf", teacher_run=str(runs("digits_lcm")), sigma_data=0.5))


def test_an_lcm_of_another_network_is_refused_where_it_starts(runs):
    experiment = digits_lcf.build(small("digits_lcf", teacher_run=str(runs("digits_lcm")), width=32))
    assert experiment.initial is not None
    abstract = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
    with pytest.raises(ValueError, match="are not those of this network"):
        check_initial(experiment.initial(), abstract)


def test_without_an_lcm_it_can_be_built_and_says_what_it_lacks():
    experiment = module("digits_lcf").build(small("digits_lcf"))
    with pytest.raises(ValueError, match=r"needs a trained LCM: .*--config\.teacher_run=DIR"):
        experiment.initial()
