import subprocess
import sys
from pathlib import Path

CODE = """
import sys
for name in ("jaxtyping", "flax", "optax", "beartype"):
    sys.modules[name] = None  # an import of it raises ModuleNotFoundError
from functools import partial
import jax, losses, samplers
x = jax.numpy.ones((2, 3))
net = lambda x, t: x / 2
loss, _ = losses.consistency(net, x, jax.random.key(0), pairs=partial(losses.pairs.ect, stage=1))
keys = samplers.sample_keys(0, jax.numpy.arange(2))
print(loss.shape, samplers.multistep_consistency(net, x, [80.0, 1.0], keys, path=losses.edm).shape)
"""


def test_losses_and_samplers_need_jax_alone():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", CODE], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout == "(2,) (2, 3)\n", done.stderr
