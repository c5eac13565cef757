"""Converted weights that are no run: an autoencoder, or a network whose outputs are features.

Not a run. `python -m models.pretrained FILE --out DIR` writes DIR, whose run.json names this file, so that whoever
takes DIR for a run is told what it is for.
"""

from typing import NoReturn

from ml_collections import ConfigDict


def build(config: ConfigDict) -> NoReturn:
    """Say what the folder is given to.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"this folder has weights of the family {config.family}, which make no samples; it is given as {config.use}"
    )
