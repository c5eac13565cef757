"""What a metric is called: what is measured, by which features at which resize, of how many samples."""

from .features import Features
from .rows import count_name

POOL, SPATIAL, LOGITS = "inception", "inception_spatial", "inception_logits"
LPIPS = "lpips_vgg"
ALONE = (LOGITS, LPIPS)  # measured of samples without real images
PUBLISHED = {POOL: "fid", SPATIAL: "sfid"}


def metric_name(measure: str, features: Features, n: int) -> str:
    """The name of a measure between samples and real data: `fd_pixels_2k`, `fid_tf1_50k`, `kid_inception_tf1_50k`.

    The Fréchet distance of Inception's pool is `fid` and that of its spatial features `sfid`, as they are published;
    of all others it is `fd_<feature>`. A resize is part of the name, since another one gives other numbers.

    Args:
        measure: "fd", "kid", "precision", ...
        features: what it is measured in.
        n: number of samples.
    """
    what = PUBLISHED.get(features.name) if measure == "fd" else None
    return named(what or f"{measure}_{features.name}", features, n)


def named(what: str, features: Features, n: int) -> str:
    """The same for a measure whose name says its features already: `inception_score_adm_tf1_50k`."""
    resize = "" if features.resize == "none" else f"_{features.resize}"
    return f"{what}{resize}_{count_name(n)}"
