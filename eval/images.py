"""Images as evaluation sees them: uint8, [count, height, width, channels]."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float, Integer, UInt8
from PIL import Image, ImageOps

from .npz import read_npz, write_npz

Images: TypeAlias = UInt8[np.ndarray, "n height width channels"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff"}


def to_uint8(
    x: Float[Array, "*batch height width channels"] | Float[np.ndarray, "*batch height width channels"],
) -> UInt8[np.ndarray, "*batch height width channels"]:
    """Quantise images from model space, once, before anything measures or stores them.

    Values outside [-1, 1] are clipped. Undoes `x / 127.5 - 1` exactly.

    Args:
        x: images [..., H, W, C] in [-1, 1], any float type.

    Returns:
        `round((clip(x, -1, 1) + 1) * 127.5)`, ties to even.

    Raises:
        ValueError: some values are NaN or infinite; says how many and in how many images.
    """
    values = np.asarray(x, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        whole = finite.all(axis=(-3, -2, -1))
        raise ValueError(
            f"{values.size - finite.sum()} of {values.size} values, in {whole.size - whole.sum()} of "
            f"{whole.size} images, are NaN or infinite; they have no uint8 value"
        )
    return np.rint((np.clip(values, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


def write_samples(
    path: str | Path,
    images: Images,
    labels: Integer[np.ndarray, " n"] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write samples as npz: `arr_0` uint8 images, `arr_1` labels if there are any; ADM's evaluator reads it.

    Raises:
        FileExistsError: the file exists and `overwrite` is False.
    """
    arrays = {"arr_0": images} if labels is None else {"arr_0": images, "arr_1": labels}
    write_npz(path, overwrite=overwrite, **arrays)


def read_images(path: str | Path) -> Images:
    """Images of an npz file (`arr_0`) or of a folder of image files in the order of their names.

    Files are turned upright by their EXIF mark and transparency is laid over white, as for training. Grey files give
    one channel, all other files three: palettes are looked up, CMYK is converted. Files of 16 bits are no samples.

    Raises:
        FileNotFoundError: no such file or folder, or a folder without images.
        ValueError: a file is no 8-bit image or differs in size or channels from the first; names it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such npz file or folder of images")
    return _read_folder(path) if path.is_dir() else _read_array(path)


def image_batches(path: str | Path, batch_size: int) -> Iterator[Images]:
    """The same batch by batch; of a folder no more than one batch is in memory.

    Raises:
        FileNotFoundError: as `read_images`, when it is called and not when it is read.
        ValueError: as `read_images`.
    """
    path = Path(path)
    if path.is_dir():
        return _folder_batches(_image_files(path), batch_size)
    images = read_images(path)
    return (images[start : start + batch_size] for start in range(0, len(images), batch_size))


def _read_array(path: Path) -> np.ndarray:
    arrays = read_npz(path)
    if "arr_0" not in arrays:
        raise ValueError(f"{path}: expected images under arr_0; found {sorted(arrays)}")
    images = arrays["arr_0"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"{path}: arr_0 is {images.dtype} {images.shape}, expected uint8 [n, height, width, 1 or 3]")
    return images


def _read_folder(path: Path) -> np.ndarray:
    files = _image_files(path)
    return next(_folder_batches(files, len(files)))


def _image_files(path: Path) -> list[Path]:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{path}: no image files ({', '.join(sorted(SUFFIXES))})")
    return files


def _folder_batches(files: list[Path], batch_size: int) -> Iterator[np.ndarray]:
    shape = _read_file(files[0]).shape
    for start in range(0, len(files), batch_size):
        images: list[np.ndarray] = []
        for file in files[start : start + batch_size]:
            image = _read_file(file)
            if image.shape != shape:
                raise ValueError(f"{file}: shape {image.shape}, but {files[0].name} has {shape}")
            images.append(image)
        yield np.stack(images)


def _read_file(file: Path) -> np.ndarray:
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} is not 8-bit")
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
            array = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read as an 8-bit image: {error}") from error
    return array[..., None] if array.ndim == 2 else array
