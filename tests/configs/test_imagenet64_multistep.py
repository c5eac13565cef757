"""Multistep consistency with a published network: it starts as its teacher, follows it, and ends where that ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from configs import imagenet, teachers
from losses import edm
from models import adm
from models.pretrained import convert, write
from samplers.noise import initial
from tests.configs.made_up import CLASSES, SHAPE, module, small
from tests.models.pretrained import made_up as checkpoints
from tests.models.pretrained import written
from train.state import check_initial

pytestmark = pytest.mark.usefixtures("small_data")
RUNS = ("imagenet64_multistep_training", "imagenet64_multistep_distillation")
# EDM's heads have 64 channels, which its files do not say.
EXACT = {"bfloat16": False, "dropout": 0.0, "channels": 64, "channels_per_head": 64}
KEYS, LABELS = jax.random.split(jax.random.key(0), 2), jnp.arange(2)


@pytest.fixture
def published(tmp_path):
    """An EDM of ImageNet-64 as its authors store it, with a student's network in small, converted."""
    network = imagenet.network(adm, small(RUNS[0], "ADM", **EXACT))
    stored = {"unet": "adm", "resolution": 8, "multipliers": (1,), "resample_filter": (1, 1), "frequencies": None}
    settings = {"network": stored | {"residual_encoder": False}, "call": {"kind": "edm"}}
    case = checkpoints.Case("edm", network.clone(augment_features=9), settings, {"preconditioning": "edm"})
    path = written.write_state_dict(tmp_path / "edm.pt", checkpoints.tensors(case, checkpoints.params_of(case)))
    write(tmp_path / "edm", convert(path, **case.given), path)
    return tmp_path / "edm"


@pytest.mark.parametrize("name", RUNS)
def test_a_published_network_starts_and_teaches(name, published):
    """With one segment the student draws at first as its teacher denoises, from noise of 80."""
    experiment = module(name).build(small(name, "ADM", **EXACT, teacher_run=str(published), segments=1))
    start = experiment.initial()
    check_initial(start, jax.eval_shape(lambda: experiment.init(jax.random.key(0))))
    teacher = teachers.teacher(str(published), shape=SHAPE, num_classes=CLASSES, sigma_data=0.5)
    expected = teacher.diffusion.on_path(teacher.params(), LABELS, edm)(80 * initial(KEYS, SHAPE), jnp.full(2, 80.0))
    assert jnp.abs(expected).max() > 0.01
    found = jax.jit(experiment.samplers[0].sample)(start, KEYS, LABELS)
    np.testing.assert_allclose(found, expected, rtol=5e-5, atol=5e-5 * np.abs(expected).max())
    facts = train.check(experiment)
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0


def test_a_network_that_is_not_there_is_refused():
    for name in RUNS:
        with pytest.raises(ValueError, match=r"network is 'EDM2', this run has UViT or ADM"):
            module(name).get_config("EDM2")
