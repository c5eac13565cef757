"""Networks, and the functions from network to network: preconditioning and guidance."""

from . import embeddings, preconditioning, translation, vgg
from .adm import ADMUNet, adm
from .attention import Attention, plain_attention, softmax_attention
from .dit import SIZES, DiT
from .edm2 import EDM2_SIZES, EDM2UNet, edm2, edm2_scm
from .edm2_blocks import project_weights, projected
from .guidance import guide
from .in_context_dit import IN_CONTEXT_SIZES, InContextDiT
from .log_variance import LogVariance
from .mlp import MLP
from .net import Net
from .non_scaling_norm import non_scaling_norm
from .stable_unet import StableUNet, stable_1_5, stable_2_1
from .stable_unet_weights import read_stable, stable_from
from .streaming_attention import streaming_attention
from .unet import SongUNet, ddpmpp, ncsnpp
from .uvit import UViT

__all__ = [
    "EDM2_SIZES",
    "IN_CONTEXT_SIZES",
    "MLP",
    "SIZES",
    "ADMUNet",
    "Attention",
    "DiT",
    "EDM2UNet",
    "InContextDiT",
    "LogVariance",
    "Net",
    "SongUNet",
    "StableUNet",
    "UViT",
    "adm",
    "ddpmpp",
    "edm2",
    "edm2_scm",
    "embeddings",
    "guide",
    "ncsnpp",
    "non_scaling_norm",
    "plain_attention",
    "preconditioning",
    "project_weights",
    "projected",
    "read_stable",
    "softmax_attention",
    "stable_1_5",
    "stable_2_1",
    "stable_from",
    "streaming_attention",
    "translation",
    "vgg",
]
