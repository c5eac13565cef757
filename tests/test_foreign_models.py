"""docs/use_your_own_model.md, run: networks of four libraries in a trainer and in the losses."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "use_your_own_model.md").read_text()
ADAPTERS = {"A plain function": "jax", "Flax Linen": "flax.linen", "Flax NNX": "flax.nnx", "Equinox": "equinox"}

Names = dict[str, Any]
"""What the page's code defines"""


def code_of_sections(page: str) -> dict[str, str]:
    """{title of a section: its code}, with the islands imported from the checkout."""
    page = re.sub(r"^from fewstep\.(\w+) import", r"from \1 import", page, flags=re.MULTILINE)
    titles, texts = (re.split(r"^##+ (.+)\n", page, flags=re.MULTILINE)[start::2] for start in (1, 2))
    code = {
        title: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for title, text in zip(titles, texts, strict=True)
    }
    return {title: "\n".join(blocks) for title, blocks in code.items() if blocks}


CODE = code_of_sections(PAGE)
USES = [title for title in CODE if title not in ADAPTERS]


def run(sections: Iterable[str]) -> Names:
    """Execute sections of the page in one namespace, as a reader who pastes them would."""
    names: Names = {"__name__": "page"}
    for section in sections:
        exec(compile(CODE[section], f"docs/use_your_own_model.md, {section}", "exec"), names)
    return names


@pytest.fixture(scope="module", params=ADAPTERS)
def adapted(request: pytest.FixtureRequest) -> Names:
    """Each adapter with the sections of the page that depend on how it handles its dropout key and its parameters."""
    pytest.importorskip(ADAPTERS[request.param])
    return run([request.param, *USES[:2]])


@pytest.fixture(scope="module")
def whole() -> Names:
    """The whole page with the first adapter: the other sections see a `network` and nothing of its library."""
    return run([*list(ADAPTERS)[:1], *USES])


def assert_trains(objective: Callable[[Any], jax.Array], params: Any) -> None:
    """The gradient is finite and reaches every array, and a small step along it lowers the loss of the same draw."""
    loss_and_gradient = jax.jit(jax.value_and_grad(objective))
    loss, gradient = loss_and_gradient(params)
    for leaf in jax.tree.leaves(gradient):
        assert jnp.isfinite(leaf).all()
        assert (leaf != 0).any()
    squared_norm = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(gradient))
    moved = jax.tree.map(lambda p, g: p - 0.01 * loss / squared_norm * g, params, gradient)  # 1 % lower, to first order
    assert loss_and_gradient(moved)[0] < loss


def test_all_code_of_the_page_is_run_here():
    assert set(ADAPTERS) < set(CODE)
    assert PAGE.count("```") == 2 * len(CODE)


def test_dropout_is_the_same_for_the_same_key_and_only_then(adapted):
    x, t = jnp.ones((32, 2)), jnp.full(32, 0.5)
    net, other, without = (
        jax.jit(adapted["network"](adapted["params"], dropout))
        for dropout in (jax.random.key(3), jax.random.key(4), None)
    )
    assert jnp.array_equal(net(x, t), net(x, t))
    assert not jnp.allclose(net(x, t), other(x, t))
    assert len(jnp.unique(net(x, t)[:, 0])) > 16  # equal inputs, a mask for each example
    assert len(jnp.unique(without(x, t)[:, 0])) == 1


def test_the_trainer_of_the_page_lowers_the_loss(adapted):
    params, x, key = adapted["params"], adapted["x"], jax.random.key(6)
    moved, loss = adapted["step"](params, x, key)
    assert adapted["step"](moved, x, key)[1] < loss
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(moved), strict=True):
        assert jnp.isfinite(after).all()
        assert (after != before).any()


def test_a_consistency_loss_trains(adapted):
    assert_trains(lambda p: adapted["consistency_objective"](p, adapted["x"], jax.random.key(5)), adapted["params"])


def test_a_loss_against_an_average_trains(whole):
    average = jax.tree.map(lambda p: 0.9 * p, whole["params"])
    assert_trains(lambda p: whole["ct_objective"](p, average, whole["x"], jax.random.key(5)), whole["params"])


def test_a_loss_on_what_a_teacher_generates_trains(whole):
    teacher = jax.tree.map(lambda p: 0.9 * p, whole["params"])
    assert_trains(lambda p: whole["reflow_objective"](p, teacher, whole["x"], jax.random.key(5)), whole["params"])


def test_a_conditional_network_trains(whole):
    x = whole["x"]
    labels = jnp.arange(len(x)) % 10

    def objective(params):
        loss, _ = whole["rectified_flow"](whole["conditional"](params, labels, jax.random.key(7)), x, jax.random.key(5))
        return loss.mean()

    assert_trains(objective, whole["labelled"])


def test_the_samples_are_drawn_without_dropout(whole):
    x, net = whole["z"], whole["network"](whole["params"], None)
    for t in (1.0, 0.75, 0.5, 0.25):
        x -= 0.25 * net(x, jnp.full(16, t))
    assert jnp.allclose(whole["samples"], x, atol=1e-6)


def test_filter_grad_takes_the_whole_equinox_module():
    eqx = pytest.importorskip("equinox")
    names = run(["Equinox", USES[0]])
    x, key = names["x"], jax.random.key(5)
    module = eqx.combine(names["params"], names["static"])
    gradient = eqx.filter_jit(eqx.filter_grad(names["objective"]))(module, x, key)
    moved, _ = names["step"](names["params"], x, key)
    assert jnp.allclose(module.hidden.weight - 0.01 * gradient.hidden.weight, moved.hidden.weight)
