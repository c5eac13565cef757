"""Words for what the user gave and cannot be used."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


class UsageError(Exception):
    """Something the user gave cannot be used, or what happened is told in one sentence; shown without a traceback."""
