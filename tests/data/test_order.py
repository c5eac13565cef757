import gc
import os
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from data.memory import ArraySource
from data.order import batches
from data.source import Example

ROOT = Path(__file__).parents[2]
COUNT = 23


def numbered(count: int = COUNT) -> ArraySource:
    """Every label is the index of its example."""
    return ArraySource("numbered", np.zeros((count, 2, 2, 1), np.uint8), np.arange(count, dtype=np.int32), count)


class Streamed:
    """`numbered` without arrays, so it is read by threads."""

    name, shape, num_classes = "numbered", (2, 2, 1), COUNT

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return Example(image=np.zeros((2, 2, 1), np.uint8), label=np.int32(index))


PROCESSES = """
from itertools import islice
from data.order import batches
from tests.data.test_order import Streamed

if __name__ == "__main__":
    def labels(**arguments):
        read = batches(Streamed(), seed=3, batch_size=5, start_step=4, **arguments)
        return [batch["label"].tolist() for batch in islice(read, 7)]

    assert labels(num_processes=2, num_threads=1) == labels()
    print("alike")
"""


def labels(source, steps, **arguments):
    return np.stack([batch["label"] for batch in islice(batches(source, **arguments), steps)])


def test_every_epoch_holds_every_example_once_in_a_new_order():
    order = labels(numbered(), 23, seed=0, batch_size=5).reshape(5, COUNT)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(COUNT), (5, 1)))
    assert len(np.unique(order, axis=0)) == 5


@pytest.mark.parametrize("source", [numbered(), Streamed()], ids=["memory", "streamed"])
@pytest.mark.parametrize("start", [1, 4, 5, 9, 20])
def test_starting_late_equals_never_having_stopped(source, start):
    # 23 examples in batches of 5: step 4 lies across the first epoch boundary, step 9 across the second.
    whole = labels(source, 24, seed=3, batch_size=5)
    np.testing.assert_array_equal(labels(source, 24 - start, seed=3, batch_size=5, start_step=start), whole[start:])


def test_streamed_and_memory_sources_give_the_same_order():
    np.testing.assert_array_equal(
        labels(numbered(), 12, seed=3, batch_size=5), labels(Streamed(), 12, seed=3, batch_size=5, num_threads=3)
    )


def test_the_order_does_not_depend_on_the_batch_size():
    np.testing.assert_array_equal(
        labels(numbered(), 12, seed=3, batch_size=5).ravel(), labels(numbered(), 6, seed=3, batch_size=10).ravel()
    )


def test_neighbouring_seeds_share_no_epoch():
    one, two = (labels(numbered(), 6, seed=seed, batch_size=COUNT) for seed in (0, 1))
    assert len(np.unique(np.concatenate([one, two]), axis=0)) == 12


def test_rows_of_two_processes_make_up_the_global_batch():
    whole = labels(numbered(), 12, seed=3, batch_size=6)
    first = labels(numbered(), 12, seed=3, batch_size=6, rows=range(2))
    second = labels(numbered(), 12, seed=3, batch_size=6, rows=[2, 3, 4, 5])
    np.testing.assert_array_equal(np.concatenate([first, second], axis=1), whole)


def test_batches_without_labels_have_none():
    batch = next(batches(ArraySource("plain", np.zeros((4, 2, 2, 1), np.uint8)), seed=0, batch_size=4))
    assert set(batch) == {"image"}
    assert batch["image"].shape == (4, 2, 2, 1)
    assert batch["image"].dtype == np.uint8


def test_a_batch_may_hold_the_whole_data_set_but_no_more():
    assert sorted(labels(numbered(), 1, seed=0, batch_size=COUNT)[0]) == list(range(COUNT))
    with pytest.raises(ValueError, match=r"batch_size is 24, but numbered has 23 examples; it must lie in 1 .. 23"):
        batches(numbered(), seed=0, batch_size=24)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"batch_size is 0, .* must lie in 1 .. 23"),
        ({"batch_size": -4}, r"batch_size is -4"),
        ({"start_step": -1}, r"start_step is -1, it must not be negative"),
        ({"seed": -1}, r"seed is -1, it must not be negative"),
        ({"num_threads": 0}, r"num_threads is 0, it must be at least 1"),
        ({"num_processes": -1}, r"num_processes is -1, it must not be negative"),
        (
            {"rows": range(9)},
            r"rows is range\(0, 9\), it must be some of the batch's rows 0 .. 7",
        ),
        ({"rows": []}, r"rows is"),
        ({"rows": [-2, -1]}, r"rows is"),
    ],
)
def test_wrong_arguments_are_refused_before_any_iteration(arguments, message):
    with pytest.raises(ValueError, match=message):
        batches(numbered(), **{"seed": 0, "batch_size": 8, **arguments})


def test_an_empty_source_is_refused():
    with pytest.raises(ValueError, match="numbered is empty"):
        batches(numbered(0), seed=0, batch_size=1)


def test_an_error_while_reading_reaches_the_caller():
    class Broken(Streamed):
        def __getitem__(self, index):
            raise ValueError(f"example {index} is broken")

    with pytest.raises(ValueError, match=r"example \d+ is broken"):
        next(batches(Broken(), seed=0, batch_size=2))


def test_an_iterator_that_is_dropped_leaves_no_thread():
    before = set(threading.enumerate())
    iterator = batches(Streamed(), seed=0, batch_size=4)
    next(iterator)
    mine = set(threading.enumerate()) - before
    assert mine
    del iterator
    gc.collect()
    for thread in mine:
        thread.join(timeout=5)
    assert not [thread for thread in mine if thread.is_alive()]


def test_a_program_that_stops_reading_ends_at_once_and_silently():
    code = (
        "import numpy as np\n"
        "from data.order import batches\n"
        "class Source:\n"
        "    name, shape, num_classes = 'x', (2, 2, 1), 0\n"
        "    def __len__(self): return 64\n"
        "    def __getitem__(self, index): return {'image': np.zeros((2, 2, 1), np.uint8)}\n"
        "iterator = batches(Source(), seed=0, batch_size=4)\n"
        "next(iterator)\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.slow
def test_processes_that_read_ahead_give_the_same_batches(tmp_path):
    program = tmp_path / "program.py"  # a file, since the processes import the one that starts them
    program.write_text(PROCESSES)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "alike", done.stderr
