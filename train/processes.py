"""Start several processes as one run, on JAX's own distributed runtime."""

import os
import re
import socket
import threading
import time
from typing import NamedTuple

import jax

from .refusal import Refused

# Each is set by a launcher that starts several processes; its value then says that there are more than one.
LAUNCHERS = {
    "SLURM": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
}
TPU_HOSTS = "TPU_WORKER_HOSTNAMES"  # GKE gives every worker of a slice the names of all
TPU_SLICES = "MEGASCALE_NUM_SLICES"
ENVIRONMENT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
GRACE_SECONDS = 30  # how much longer JAX may wait than we do: it ends the process without a word that helps


class Processes(NamedTuple):
    """How the processes of a run find each other.

    Attributes:
        coordinator: HOST:PORT of process 0, or None to let JAX find it (SLURM, Open MPI, GKE, Cloud TPU metadata).
        number: how many there are, or None.
        rank: which of them this is, or None.
    """

    coordinator: str | None = None
    number: int | None = None
    rank: int | None = None


def find_processes(given: Processes, *, distributed: bool | None) -> Processes | None:
    """What flags and environment say about other processes; None for a run of one.

    Args:
        given: from flags, all three or none; else JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
        distributed: False for a run of one whatever the environment says, True to have JAX look for the others, which
            Cloud TPU VMs need as their environment tells nothing; None to have it look if the
            environment tells of others.

    Raises:
        Refused: some of the three are missing, or the index is not one of the processes.
    """
    if distributed is False:
        return None
    if given == Processes():
        address, count, index = (os.environ.get(name) for name in ENVIRONMENT)
        try:
            given = Processes(address, *(None if text is None else int(text) for text in (count, index)))
        except ValueError:
            raise Refused(f"{ENVIRONMENT[1]} and {ENVIRONMENT[2]} must be numbers, got {count!r}, {index!r}") from None
    if given != Processes():
        missing = [name for name, value in given._asdict().items() if value is None]
        if missing and not (missing == ["number", "rank"] and launched()):
            raise Refused(
                f"several processes need --coordinator, --processes and --process_id, or {', '.join(ENVIRONMENT)}; "
                f"missing: {', '.join(missing)}"
            )
        if not missing and given.number is not None and given.rank is not None and not 0 <= given.rank < given.number:
            raise Refused(f"process_id is {given.rank}; of {given.number} processes it is 0 .. {given.number - 1}")
        return given
    return Processes() if distributed or launched() else None


def launched() -> str:
    """The launcher that has started more than one process, "" if none has."""
    for name, (index, count) in LAUNCHERS.items():
        if index in os.environ and int(os.environ.get(count, "1")) > 1:
            return name
    several = "," in os.environ.get(TPU_HOSTS, "") or int(os.environ.get(TPU_SLICES, "1")) > 1
    return "Cloud TPU" if several else ""


def start_processes(found: Processes, *, timeout_seconds: int, heartbeat_seconds: int) -> None:
    """Join the other processes; afterwards jax.devices() are those of all.

    Args:
        found: of `find_processes`.
        timeout_seconds: how long to wait for the others.
        heartbeat_seconds: a process that is not heard of for so long is dead, and ends all the others.

    Raises:
        Refused: the port is in use, or the coordinator is not there in time. If others do not come in time, the process
            says so and ends with exit code 1, since JAX does not return.
    """
    address = found.coordinator or f"the address that JAX found ({launched() or 'in the metadata'})"
    who = f"process {found.rank} of {found.number}" if found.number is not None else "this process"
    if found.coordinator is not None and found.rank is not None:
        if found.rank:
            wait_for(found.coordinator, seconds=timeout_seconds)
        else:
            check_free(found.coordinator)
    # Stopping is agreed on by the loop itself; JAX's own service would take SIGTERM away from it.
    jax.config.update("jax_enable_preemption_service", False)

    def give_up() -> None:
        text = (
            f"error: {who}: not all processes came to {address} within {timeout_seconds} s; were all of them started? "
            "--distributed=false runs one alone"
        )
        os.write(2, f"{text}\n".encode())
        os._exit(1)

    alarm = threading.Timer(timeout_seconds, give_up)
    alarm.daemon = True
    alarm.start()
    told = None not in found
    try:
        jax.distributed.initialize(
            found.coordinator,
            found.number,
            found.rank,
            local_device_ids=None if told else local_gpus(),
            cluster_detection_method="deactivate" if told else None,
            initialization_timeout=timeout_seconds + GRACE_SECONDS,
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=heartbeat_seconds,
        )
    except (RuntimeError, ValueError) as error:
        raise Refused(f"{who} cannot start at {address}: {error}; is the port in use?") from error
    finally:
        alarm.cancel()


def local_gpus() -> list[int] | None:
    """The GPUs of a process that SLURM or Open MPI has started; None leaves it to JAX, as where there are none.

    JAX takes the one that has the process's number on its node, which is right where each of several processes sees
    all. A process that is alone on its node has all of them, and one that sees a single GPU knows it as the first.
    """
    if "JAX_LOCAL_DEVICE_IDS" in os.environ or launched() not in LAUNCHERS:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(visible.split(",")) if visible else int(os.environ.get("SLURM_GPUS_ON_NODE", "0"))
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", ""))
    alone = re.fullmatch(r"1(\(x\d+\))?", tasks) is not None
    return list(range(count)) if count and (alone or count == 1) else None


def host_and_port(address: str) -> tuple[str, int]:
    """Both parts of HOST:PORT.

    Raises:
        Refused: it is no such thing.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise Refused(f"the coordinator is HOST:PORT, got {address!r}")
    return host.strip("[]"), int(port)


def check_free(address: str) -> None:
    """Refuse a port of this machine that somebody else listens at, which JAX may not survive.

    Raises:
        Refused: naming the address.
    """
    _, port = host_and_port(address)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just been given back is free
        try:
            probe.bind(("", port))
        except OSError as error:
            raise Refused(f"process 0 cannot be the coordinator at {address}: {error}") from error


def wait_for(address: str, *, seconds: float) -> None:
    """Return once something answers at HOST:PORT.

    Raises:
        Refused: nothing does within these seconds, or it is no address.
    """
    host, port = host_and_port(address)
    end, problem = time.monotonic() + seconds, ""
    while (left := end - time.monotonic()) > 0:
        try:
            socket.create_connection((host, port), timeout=left).close()
            return
        except OSError as error:
            problem = str(error)
            time.sleep(min(0.2, left))
    raise Refused(f"nothing answers at the coordinator's address {address} within {seconds:g} s: {problem}")
