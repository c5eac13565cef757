import itertools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from models import autoencoder_discriminator
from models.autoencoder_discriminator import PatchDiscriminator


def test_a_logit_looks_at_a_patch_of_the_published_size(monkeypatch, randomized):
    monkeypatch.setattr(autoencoder_discriminator, "group_norm", lambda x, *_: x)  # it looks at the whole image
    module = PatchDiscriminator(channels=2, layers=2)
    x = jax.random.normal(jax.random.key(0), (1, 64, 64, 1))
    variables, apply = randomized(module, x), cast(Any, module.apply)

    def middle(x):
        (logits,) = apply(variables, x)
        assert logits.shape == (1, 14, 14, 1)
        return logits[0, 7, 7, 0]

    touched = np.asarray(jax.jit(jax.grad(middle))(x))[0, ..., 0] != 0
    for axis in (0, 1):
        assert np.ptp(np.flatnonzero(touched.any(axis=axis))) + 1 == 34


def test_examples_do_not_depend_on_each_other(randomized):
    module = PatchDiscriminator(channels=4, layers=1, groups=2, dtype=jnp.bfloat16)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    apply = jax.jit(module.apply)
    variables = randomized(module, x)
    (logits,) = apply(variables, x)
    (alone,) = apply(variables, x.at[1].set(0))
    assert logits.dtype == jnp.float32
    np.testing.assert_array_equal(alone[0], logits[0])
    assert np.abs(alone[1] - logits[1]).max() > 0.01


def test_the_defaults_have_as_many_parameters_as_latent_diffusions():
    shapes = jax.eval_shape(PatchDiscriminator().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    widths = (3, 64, 128, 256, 512, 1)
    convolutions = sum(16 * a * b for a, b in itertools.pairwise(widths))
    norms, biases = 2 * (128 + 256 + 512), 64 + 1
    # There a layer before a norm has no bias, which the norm would undo.
    ours = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert ours == convolutions + norms + biases + (128 + 256 + 512) == 2_766_529
