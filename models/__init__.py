"""Networks, and the functions from network to network: preconditioning and guidance."""

from . import embeddings, preconditioning
from .attention import Attention, softmax_attention
from .dit import SIZES, DiT
from .guidance import guide
from .mlp import MLP
from .net import Net
from .unet import SongUNet, ddpmpp, ncsnpp

__all__ = [
    "MLP",
    "SIZES",
    "Attention",
    "DiT",
    "Net",
    "SongUNet",
    "ddpmpp",
    "embeddings",
    "guide",
    "ncsnpp",
    "preconditioning",
    "softmax_attention",
]
