"""A damage that one of two processes sees alone, as it reads its own part of a checkpoint."""

import os
import re
import subprocess
import sys

import pytest

from tests.children import ROOT, end, free_port


@pytest.mark.slow
def test_a_part_of_one_process_that_is_damaged_is_refused_and_gone_back_from_by_both_alike(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.damaged_part", str(tmp_path / "run"), address, str(index)],
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for index in range(2)
    ]
    told = []
    for code, output in end(both):
        assert code == 0, output
        told.append([line for line in output.splitlines() if line.startswith(("refused:", "4 steps"))])
    assert told[0] == told[1]
    refused, gone_back = told[0]
    # Step, leaf and piece of it, and what is allowed.
    damage = (
        r"refused: process 1: .*/checkpoints/12 cannot be read.*\.weight/1\.0\".*--allow_fallback goes back to step 8"
    )
    assert re.fullmatch(damage, refused), refused
    assert gone_back == "4 steps to 12"
