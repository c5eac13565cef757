"""Metrics of generated images, the references they are measured against, grids, plots and tables.

Import names from here, or files: a bare `import eval` hides the builtin.
"""

from .classifier import (
    Classifier,
    label_agreement,
    load_classifier,
    log_probabilities,
    save_classifier,
    train_classifier,
)
from .classifier_cache import cache_folder, kept_classifier
from .compare import compare_sets, real_floor
from .crossing import crossing
from .draw import Sampler, draw, draw_all
from .features import Features, in_batches, pixels
from .frechet import frechet_distance
from .grid import by_class, grid, labelled_panels
from .images import read_images, to_uint8, write_samples
from .judge import judge
from .kid import kernel_distance
from .plots import loss_curves, metric_against_nfe
from .precision_recall import precision_recall
from .rebuild import load_experiment, load_module, read_run
from .reference import Reference, make_reference, read_reference, write_reference
from .report import print_report, table
from .rows import Row, append_rows, count_name, read_rows
from .run import Experiment, evaluate
from .statistics import Statistics, mean_and_covariance

__all__ = [
    "Classifier",
    "Experiment",
    "Features",
    "Reference",
    "Row",
    "Sampler",
    "Statistics",
    "append_rows",
    "by_class",
    "cache_folder",
    "compare_sets",
    "count_name",
    "crossing",
    "draw",
    "draw_all",
    "evaluate",
    "frechet_distance",
    "grid",
    "in_batches",
    "judge",
    "kept_classifier",
    "kernel_distance",
    "label_agreement",
    "labelled_panels",
    "load_classifier",
    "load_experiment",
    "load_module",
    "log_probabilities",
    "loss_curves",
    "make_reference",
    "mean_and_covariance",
    "metric_against_nfe",
    "pixels",
    "precision_recall",
    "print_report",
    "read_images",
    "read_reference",
    "read_rows",
    "read_run",
    "real_floor",
    "save_classifier",
    "table",
    "to_uint8",
    "train_classifier",
    "write_reference",
    "write_samples",
]
