"""What the README and its kin say: code that runs, links that lead somewhere, configs that exist."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

ROOT = Path(__file__).parents[1]
OTHERS = ("runs", "build", "dist")
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in OTHERS for part in path.relative_to(ROOT).parts)
)


def test_the_ten_lines_of_foreign_code_train_a_function():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(code.replace("fewstep.losses", "losses"), names)
    key_in, key_out, key_x = jax.random.split(jax.random.key(0), 3)
    params = {"in": jax.random.normal(key_in, (3, 16)), "out": 0.1 * jax.random.normal(key_out, (16, 2))}
    x = 0.1 * jax.random.normal(key_x, (256, 2)) + 1
    step = jax.jit(jax.value_and_grad(names["loss"]))
    losses = []
    for _ in range(200):
        loss, gradient = step(params, x, jax.random.key(7), 0)
        params = jax.tree.map(lambda p, g: p - 1e-2 * g, params, gradient)
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
    x_t = jax.random.normal(key_x, (4, 2))
    assert jnp.array_equal(names["net"](params, x_t, jnp.zeros(4)), x_t)  # the boundary condition it promises


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [t for t in targets if not t.startswith("http") and not (page.parent / t).exists()]
    assert missing == []


def test_every_island_and_folder_of_code_has_a_readme_with_a_table():
    for folder in ("losses", "samplers", "models", "data", "train", "eval", "configs", "benchmarks", "docs"):
        assert re.search(r"^\|[-| ]+\|$", (ROOT / folder / "README.md").read_text(), re.MULTILINE), folder


def test_configs_named_in_the_readme_exist():
    named = re.findall(r"configs/(\w+)\.py", (ROOT / "README.md").read_text())
    assert named
    assert [name for name in named if not (ROOT / "configs" / f"{name}.py").exists()] == []
