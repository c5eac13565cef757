import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from losses import edm


def test_the_example_runs():
    page = (Path(__file__).parents[2] / "samplers" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {"edm": edm, "f": lambda x, t: x / (1 + t[0]), "v": lambda x, t: x * t[0] / (1 + t[0] ** 2)}
    exec(code.replace("fewstep.samplers", "samplers"), names)
    assert names["images"].shape == (16, 32, 32, 3)
    assert jnp.isfinite(names["images"]).all()
