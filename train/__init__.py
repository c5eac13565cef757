"""One trainer for every method: state, sharded step, loop, averages, schedules, checkpoints, logs."""

from . import averages, plan_text, posthoc, schedules
from .agreement import check_alike, gather_texts, is_first
from .check import check, count_parameters, trace_loss
from .checkpoint import SaveError
from .code import code_hash, code_hashes
from .experiment import Batch, Context, Experiment, Params, Periodic, Sampler, validate
from .finite import NonFiniteError
from .log import read_log
from .loop import Finished, fit
from .memory import OutOfMemory
from .plan import Plan, largest_batch, plan
from .processes import Processes, find_processes, start_processes
from .progress import say, unread_output
from .refusal import Refused
from .restoring import PARTS, Resume
from .sharding import batch_sharding, check_batch_size, make_mesh, replicated, state_shardings
from .snapshots import restore_or_reconstruct
from .state import State, check_initial, init_state, place_state, state_like
from .step import make_step
from .topology import topology_devices
from .weights import restore_average
from .workdir import Record, circumstances, write_record

__all__ = [
    "PARTS",
    "Batch",
    "Context",
    "Experiment",
    "Finished",
    "NonFiniteError",
    "OutOfMemory",
    "Params",
    "Periodic",
    "Plan",
    "Processes",
    "Record",
    "Refused",
    "Resume",
    "Sampler",
    "SaveError",
    "State",
    "averages",
    "batch_sharding",
    "check",
    "check_alike",
    "check_batch_size",
    "check_initial",
    "circumstances",
    "code_hash",
    "code_hashes",
    "count_parameters",
    "find_processes",
    "fit",
    "gather_texts",
    "init_state",
    "is_first",
    "largest_batch",
    "make_mesh",
    "make_step",
    "place_state",
    "plan",
    "plan_text",
    "posthoc",
    "read_log",
    "replicated",
    "restore_average",
    "restore_or_reconstruct",
    "say",
    "schedules",
    "start_processes",
    "state_like",
    "state_shardings",
    "topology_devices",
    "trace_loss",
    "unread_output",
    "validate",
    "write_record",
]
