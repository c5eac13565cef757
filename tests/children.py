"""Programs with devices of their own, for tests that need more than this process has."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def on_devices(devices: int, *arguments: str) -> str:
    """What `python ARGUMENTS` prints with so many CPU devices, warnings being errors; it has to end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
