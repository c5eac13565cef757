import subprocess
import sys
from pathlib import Path

import numpy as np

from data.memory import ArraySource
from data.source import Example, take

ROOT = Path(__file__).parents[2]


class Counting:
    """A source such as a user writes: no `take`."""

    name = "counting"
    shape = (2, 2, 1)
    num_classes = 5

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Example:
        return Example(image=np.full((2, 2, 1), index, np.uint8), label=np.int32(index))


def test_take_reads_in_the_order_asked_for():
    batch = take(Counting(), np.array([3, 0, 3]))
    np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], [3, 0, 3])
    np.testing.assert_array_equal(batch["label"], [3, 0, 3])
    assert batch["label"].dtype == np.int32


def test_take_of_a_source_in_memory_gives_the_same():
    array = ArraySource(
        "a", np.arange(5, dtype=np.uint8).repeat(4).reshape(5, 2, 2, 1), np.arange(5, dtype=np.int32), 5
    )
    ours, theirs = take(array, np.array([4, 1])), take(Counting(), np.array([4, 1]))
    np.testing.assert_array_equal(ours["image"], theirs["image"])
    np.testing.assert_array_equal(ours["label"], theirs["label"])


def test_importing_data_loads_no_heavy_library():
    code = (
        "import sys, data\n"
        "heavy = {'grain', 'sklearn', 'tensorflow', 'tensorflow_datasets', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
