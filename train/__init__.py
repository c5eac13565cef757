"""One trainer for every method: state, sharded step, loop, averages, schedules, checkpoints, logs."""

from . import averages, posthoc, schedules
from .check import check, count_parameters
from .checkpoint import restore_average
from .experiment import Batch, Context, Experiment, Params, Periodic, Sampler, validate
from .log import read_log
from .loop import Finished, NonFiniteError, fit
from .sharding import batch_sharding, check_batch_size, make_mesh, replicated, state_shardings
from .snapshots import restore_or_reconstruct
from .state import State, init_state, place_state
from .step import make_step
from .workdir import circumstances, claim

__all__ = [
    "Batch",
    "Context",
    "Experiment",
    "Finished",
    "NonFiniteError",
    "Params",
    "Periodic",
    "Sampler",
    "State",
    "averages",
    "batch_sharding",
    "check",
    "check_batch_size",
    "circumstances",
    "claim",
    "count_parameters",
    "fit",
    "init_state",
    "make_mesh",
    "make_step",
    "place_state",
    "posthoc",
    "read_log",
    "replicated",
    "restore_average",
    "restore_or_reconstruct",
    "schedules",
    "state_shardings",
    "validate",
]
