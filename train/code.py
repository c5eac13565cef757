"""Which program a run is made by: a hash of each of its files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path


def code_hashes(root: Path, parts: Sequence[str]) -> dict[str, str]:
    """Eight hexadecimal digits of SHA-256 for every Python file of the parts: files, or folders at any depth."""
    found = ([root / part] if part.endswith(".py") else (root / part).rglob("*.py") for part in parts)
    files = [file for group in found for file in group]
    return {str(file.relative_to(root)): _digest(file.read_bytes()) for file in sorted(files)}


def code_hash(hashes: dict[str, str]) -> str:
    """The same of the program as a whole."""
    return _digest(repr(sorted(hashes.items())).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]
