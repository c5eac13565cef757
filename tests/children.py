"""Programs with devices of their own, for tests that need more than this process has."""

import os
import socket
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


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def end(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Exit status and output of programs that run together, once all have ended."""
    found = []
    for process in processes:
        try:
            output, _ = process.communicate(timeout=300)
        finally:
            process.kill()
        found.append((process.returncode, output))
    return found
