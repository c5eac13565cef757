"""A converted SiT starts flow map matching and Align Your Flow as itself, and the latter follows it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from configs import imagenet256
from samplers.noise import initial
from tests.configs.converted import backwards, silent, transformer
from tests.configs.made_up import LATENT_SHAPE, module, small
from train.plan import frozen_shapes

KEYS, LABELS = jax.random.split(jax.random.key(0), 2), jnp.arange(2)
FLOW_MAPS = ("imagenet256_lsd", "imagenet256_esd", "imagenet256_psd", "imagenet256_ayf")


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize(("name", "program"), [*((name, "sit") for name in FLOW_MAPS), ("imagenet256_lsd", "repa")])
def test_a_flow_map_jumps_at_first_along_the_flow_that_starts_it(name, program, tmp_path):
    """With a network to which s says nothing; and then it learns."""
    config = small(name, bfloat16=False)
    source = imagenet256.space(config).source
    folder, (theirs, params) = transformer(tmp_path, config, program)
    experiment = module(name).build(small(name, teacher_run=str(folder)))
    x, t = initial(KEYS, source.shape), jnp.ones(len(KEYS))
    v = backwards(theirs, params, program)(x, t, LABELS)
    one = next(sampler for sampler in experiment.samplers if sampler.nfe == 1)
    found = jax.jit(one.sample)(silent(experiment.initial()), KEYS, LABELS)
    np.testing.assert_allclose(found, x - v, rtol=1e-4, atol=1e-5)
    facts = train.check(experiment)
    assert np.isfinite(list(facts.scalars.values())).all()
    assert facts.scalars["gradient_norm"] > 0


@pytest.mark.usefixtures("small_data")
@pytest.mark.parametrize("program", ["sit", "repa"])
def test_align_your_flow_follows_the_converted_flow_and_what_guides_it(program, tmp_path):
    """On the diagonal the tangent is the teacher's velocity less the student's own, which at first is the flow's."""
    name, x = "imagenet256_ayf", jax.random.normal(jax.random.key(0), (2, *LATENT_SHAPE))
    config, t = small(name), jnp.array([0.25, 0.75])
    source = imagenet256.space(config).source
    folder, (theirs, params) = transformer(tmp_path, config, program)
    (tmp_path / "weaker").mkdir()
    weaker, (other, weak) = transformer(tmp_path / "weaker", small(name, width=8), "sit")
    v, worse = backwards(theirs, params, program), backwards(other, weak, "sit")
    null, scale = jnp.full_like(LABELS, source.num_classes), 1.75
    conditional = v(x, t, LABELS)
    for values, expected in (
        ({"guidance": 1.0}, conditional),
        ({"guidance": scale}, v(x, t, null) + scale * (conditional - v(x, t, null))),
        (
            {"guidance": scale, "weaker_run": str(weaker)},
            worse(x, t, LABELS) + scale * (conditional - worse(x, t, LABELS)),
        ),
    ):
        run = small(name, teacher_run=str(folder), same=1.0, to_data=0.0, **values)
        teacher = module(name).teacher(run, source)
        found = teacher.velocity(teacher.params(), LABELS)(x, t)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

        experiment = module(name).build(run)
        batch = experiment.prepare(jax.random.key(0), jax.tree.map(jnp.asarray, next(experiment.batches(0))))
        context = train.Context(jnp.zeros((), int), experiment.frozen(), {})
        _, metrics = experiment.objective(silent(experiment.initial()), batch, jax.random.key(1), context)
        if values["guidance"] == 1:
            np.testing.assert_allclose(metrics["tangent"], 0, atol=1e-4)
        else:
            assert metrics["tangent"].min() > 0.01


@pytest.mark.usefixtures("small_data")
def test_align_your_flow_says_what_it_lacks_and_refuses_what_it_cannot_be_guided_by(runs):
    name, flow = "imagenet256_ayf", str(runs("imagenet256_sit"))
    with pytest.raises(ValueError, match=r"this run needs a trained flow: .* --config\.teacher_run=DIR"):
        train.check(module(name).build(small(name)))
    never = str(runs("imagenet256_sit", label_dropout=0.0, guidance=1.0))
    with pytest.raises(ValueError, match=r"guidance 1\.5 needs a teacher trained with label_dropout"):
        module(name).build(small(name, teacher_run=never))
    module(name).build(small(name, teacher_run=never, weaker_run=flow))
    digits = str(runs("digits_rectified_flow"))
    with pytest.raises(ValueError, match=r"the flow in .* has shape \(8, 8, 1\), this run \(8, 8, 4\)"):
        module(name).build(small(name, teacher_run=flow, weaker_run=digits))


@pytest.mark.usefixtures("small_data")
def test_align_your_flow_is_planned_for_with_flows_that_are_yet_to_be_trained():
    config = module("imagenet256_ayf").get_config("S")
    config.update({"teacher_run": "configs/imagenet256_sit.py:S", "weaker_run": "configs/imagenet256_sit.py:B"})
    experiment = module("imagenet256_ayf").build(config)
    sizes = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in frozen_shapes(experiment).items()}
    assert 32e6 < sizes["better"] < 33e6  # SiT's table has 33 million, with a thousand classes
    assert 129e6 < sizes["weaker"] < 131e6
    with pytest.raises(ValueError, match=r"this run needs a trained flow: give its workdir with --config\.teacher_run"):
        experiment.frozen()
