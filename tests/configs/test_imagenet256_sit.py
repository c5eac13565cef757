import jax.numpy as jnp
import numpy as np
import pytest

from configs import imagenet256_sit
from tests.configs.made_up import small
from train import count_parameters


def test_the_network_is_the_published_one_but_for_what_that_discards():
    """675,129,632 parameters of SiT-XL/2, and of DiT-XL/2, with fixed positions and a second half of the output."""
    config = imagenet256_sit.get_config()
    positions, last_layer = 16 * 16 * config.width, 2 * 2 * 4 * (config.width + 1)
    assert count_parameters(imagenet256_sit.build(config)) + positions + last_layer == 675_129_632


def test_a_size_that_was_not_published_is_refused():
    with pytest.raises(ValueError, match="size is 'XXL', this run is published in S, B, L, XL"):
        imagenet256_sit.get_config("XXL")


def test_guidance_of_the_first_channels_alone():
    x, t = jnp.ones((2, 3, 3, 4)), jnp.ones(2)
    guided = imagenet256_sit.guide_channels(lambda x, t: 3 * x, lambda x, t: x, scale=1.5, channels=3)(x, t)
    np.testing.assert_array_equal(guided[0, 0, 0], [4.0, 4.0, 4.0, 3.0])


@pytest.mark.usefixtures("small_data")
def test_guidance_costs_a_second_call():
    costs = {scale: [s.nfe for s in imagenet256_sit.build(small("imagenet256_sit", guidance=scale)).samplers]
             for scale in (1.0, 1.5)}  # fmt: skip
    assert costs == {1.0: [250, 249], 1.5: [500, 498]}
