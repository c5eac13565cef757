"""Deterministic sampling of a phased consistency model that calls it past the edges of its segments."""

import numpy as np

from .ddim import ddim
from .types import Batch, Net, Path, Times, check_times


def edge_skipping(net: Net, x: Batch, times: Times, *, path: Path, skip: float) -> Batch:
    """`ddim` from times[0] to skip * times[1], to skip * times[2], ..., to 0.

    Such a model jumps to the end of the segment of t, so at an edge its task is discontinuous: from just above it
    almost nothing is left to do, from the edge itself the whole next segment. A smooth network is least to be trusted
    there, so DDIM holds the predicted data and noise a little beyond the edge and the network is called below it.

    The idea is that of Wang et al. 2024 (Stable Consistency Tuning), whose text was not at hand for the exact rule:
    shortening the time of every edge by one factor is our reading of it.

    Args:
        net: Data prediction; DDIM takes (net(x_t, t), x_t) to the end of the segment of t.
        x: State at times[0], [B, ...].
        times: The start, then the edges between segments, descending; the last segment ends at 0.
        path: x_t = alpha x + sigma z.
        skip: Where the next segment is entered, as a share of its first time, in (0, 1]. 1 stops on the edges, which
            is `ddim`.

    Raises:
        ValueError: for a skip out of range, or one that leaves out a whole segment.
    """
    grid = check_times(times)
    if not 0 < skip <= 1:
        raise ValueError(f"skip must lie in (0, 1], got {skip}")
    if (skip * grid[1:-1] <= grid[2:]).any():
        raise ValueError(f"skip must enter every segment, got {skip}, which passes a whole one of the edges {grid}")
    return ddim(net, x, np.concatenate([grid[:1], skip * grid[1:]]), path=path)
