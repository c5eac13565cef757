"""Random-access data sources, batches in a deterministic order, augmentation, checks of the first batch."""

from .absent import AbsentSource, absent
from .augment import from_model_range, horizontal_flip, to_model_range
from .captioned import CAPTIONED_FILES, CaptionedSource, captioned_latents
from .checks import check_batch
from .digits import digits
from .fingerprint import fingerprint
from .folder import FolderSource, folder
from .latents import LatentSource, latents
from .latents_scale import Scale, ScaleOf, from_model_scale, multiplied, sample_posterior, standardised, to_model_scale
from .latents_writing import write_latents
from .memory import ArraySource, cached
from .npz import npz
from .order import batches
from .pairs import PairSource, joined, pairs
from .pairs_writing import write_pairs
from .skipping import SkippingSource, skip_unreadable
from .source import Batch, Example, Source
from .tfds_source import TfdsSource, tfds_source

__all__ = [
    "CAPTIONED_FILES",
    "AbsentSource",
    "ArraySource",
    "Batch",
    "CaptionedSource",
    "Example",
    "FolderSource",
    "LatentSource",
    "PairSource",
    "Scale",
    "ScaleOf",
    "SkippingSource",
    "Source",
    "TfdsSource",
    "absent",
    "batches",
    "cached",
    "captioned_latents",
    "check_batch",
    "digits",
    "fingerprint",
    "folder",
    "from_model_range",
    "from_model_scale",
    "horizontal_flip",
    "joined",
    "latents",
    "multiplied",
    "npz",
    "pairs",
    "sample_posterior",
    "skip_unreadable",
    "standardised",
    "tfds_source",
    "to_model_range",
    "to_model_scale",
    "write_latents",
    "write_pairs",
]
