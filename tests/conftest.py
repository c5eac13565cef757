"""Under test, and only there, every annotated shape, dtype and type is checked when a function is called."""

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

ISLANDS = ("losses", "samplers", "models", "data", "train", "eval")

# An int is a good float, as every static type checker holds.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))

install_import_hook(ISLANDS, f"{__name__}.check")
