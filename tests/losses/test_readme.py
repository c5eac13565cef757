import re
from pathlib import Path

import jax
import jax.numpy as jnp


def test_the_example_for_foreign_code_runs():
    page = (Path(__file__).parents[2] / "losses" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"your_network": lambda params, x, t, key: params * x / (1 + t[:, None])}
    exec(code.replace("fewstep.losses", "losses"), names)
    gradient, metrics = names["gradient"](0.5, jnp.ones((4, 3)), jnp.asarray(100), jax.random.key(0))
    assert jnp.isfinite(gradient)
    assert gradient != 0
    assert metrics["t"].shape == (4,)
