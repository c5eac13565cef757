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
from .cmmd import cmmd
from .crossing import crossing
from .density_coverage import density_coverage
from .devices import over_devices, whole
from .diversity import within_class_diversity
from .draw import Sampler, draw, draw_all
from .features import Features, in_batches, network_features, pixels
from .frechet import frechet_distance
from .grid import by_class, grid, labelled_panels
from .images import image_batches, read_images, to_uint8, write_samples
from .judge import Batches, judge
from .kid import kernel_distance
from .names import metric_name
from .plots import loss_curves, metric_against_nfe
from .precision_recall import precision_recall
from .real import Reference, make_reference, measure_stream
from .rebuild import config_and_size, load_experiment, load_glue, load_module, read_run
from .reference_files import read_reference, reference_of, write_reference
from .report import print_report, table
from .rows import Row, append_rows, count_name, read_rows
from .run import Experiment, evaluate, judge_sampler, keep_rows
from .scores import Score, diversity_score, inception_scores
from .sets import compare_embeddings, compare_sets, compare_sets_and_coverage
from .statistics import Statistics, mean_and_covariance
from .weights import WeightFile, file_sha256, find_weights

__all__ = [
    "Batches",
    "Classifier",
    "Experiment",
    "Features",
    "Reference",
    "Row",
    "Sampler",
    "Score",
    "Statistics",
    "WeightFile",
    "append_rows",
    "by_class",
    "cache_folder",
    "cmmd",
    "compare_embeddings",
    "compare_sets",
    "compare_sets_and_coverage",
    "config_and_size",
    "count_name",
    "crossing",
    "density_coverage",
    "diversity_score",
    "draw",
    "draw_all",
    "evaluate",
    "file_sha256",
    "find_weights",
    "frechet_distance",
    "grid",
    "image_batches",
    "in_batches",
    "inception_scores",
    "judge",
    "judge_sampler",
    "keep_rows",
    "kept_classifier",
    "kernel_distance",
    "label_agreement",
    "labelled_panels",
    "load_classifier",
    "load_experiment",
    "load_glue",
    "load_module",
    "log_probabilities",
    "loss_curves",
    "make_reference",
    "mean_and_covariance",
    "measure_stream",
    "metric_against_nfe",
    "metric_name",
    "network_features",
    "over_devices",
    "pixels",
    "precision_recall",
    "print_report",
    "read_images",
    "read_reference",
    "read_rows",
    "read_run",
    "reference_of",
    "save_classifier",
    "table",
    "to_uint8",
    "train_classifier",
    "whole",
    "within_class_diversity",
    "write_reference",
    "write_samples",
]
