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
NAME = "imagenet64_multistep_adm"
# EDM's heads have 64 channels, which its files do not say.
EXACT = {"bfloat16": False, "dropout": 0.0, "channels": 64, "channels_per_head": 64}
KEYS, LABELS = jax.random.split(jax.random.key(0), 2), jnp.arange(2)


@pytest.fixture
def published(tmp_path):
    """An EDM of ImageNet-64 as its authors store it, with a student's network in small, converted."""
    network = imagenet.network(adm, small(NAME, **EXACT))
    stored = {"unet": "adm", "resolution": 8, "multipliers": (1,), "resample_filter": (1, 1), "frequencies": None}
    settings = {"network": stored | {"residual_encoder": False}, "call": {"kind": "edm"}}
    case = checkpoints.Case("edm", network.clone(augment_features=9), settings, {"preconditioning": "edm"})
    path = written.write_state_dict(tmp_path / "edm.pt", checkpoints.tensors(case, checkpoints.params_of(case)))
    write(tmp_path / "edm", convert(path, **case.given), path)
    return tmp_path / "edm"


@pytest.mark.parametrize("distill", [True, False])
def test_a_published_network_starts_and_teaches(distill, published):
    """With one segment the student draws at first as its teacher denoises, from noise of 80."""
    experiment = module(NAME).build(small(NAME, **EXACT, teacher_run=str(published), segments=1, distill=distill))
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
