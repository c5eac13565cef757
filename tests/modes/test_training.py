"""What training does before it starts."""

import socket

import jax
import pytest

from modes.training import listen_for_profilers
from modes.usage import UsageError


def free_port():
    with socket.create_server(("", 0)) as taken:
        return taken.getsockname()[1]


def test_a_profiler_finds_the_run_at_its_port():
    port = free_port()
    listen_for_profilers(port)
    try:
        socket.create_connection(("localhost", port), timeout=10).close()
    finally:
        jax.profiler.stop_server()


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"--profiler_port={port}: Address already in use"):
            listen_for_profilers(port)
