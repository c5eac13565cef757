"""Random-access data sources, batches in a deterministic order, augmentation, checks of the first batch."""

from .absent import AbsentSource, absent
from .augment import from_model_range, horizontal_flip, to_model_range
from .checks import check_batch
from .digits import digits
from .fingerprint import fingerprint
from .folder import FolderSource, folder
from .memory import ArraySource, cached
from .npz import npz
from .order import batches
from .source import Batch, Example, Source
from .tfds_source import TfdsSource, tfds_source

__all__ = [
    "AbsentSource",
    "ArraySource",
    "Batch",
    "Example",
    "FolderSource",
    "Source",
    "TfdsSource",
    "absent",
    "batches",
    "cached",
    "check_batch",
    "digits",
    "fingerprint",
    "folder",
    "from_model_range",
    "horizontal_flip",
    "npz",
    "tfds_source",
    "to_model_range",
]
