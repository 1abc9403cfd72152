"""Files that hold image sets: Parquet with encoded pictures, or what torchvision leaves after a download.

A pickle is never loaded. torchvision keeps CIFAR as pickles; their opcodes are listed, which carries none of them
out, and the bytes and numbers in them are all that is needed.
"""

from __future__ import annotations

import io
import json
import math
import pickletools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KNOWN", "Arrays", "DataDamaged", "DataMissing", "Known", "read", "source"]

Arrays = dict[str, NDArray[Any]]
"""Images and labels by their names."""

_FORMATS = ("PNG", "JPEG")  # a picture in any other is not even looked at
_MARK = b"PAR1"  # the first and the last four bytes of every Parquet file
_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE"}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2"}
_FLAGS = {"NEWTRUE": True, "NEWFALSE": False}
_ENTRIES = {"data", "labels", "fine_labels", "coarse_labels", "label_names", "fine_label_names", "coarse_label_names"}


class DataMissing(FileNotFoundError):
    """A data set is not on this machine."""


class DataDamaged(ValueError):
    """A data file is truncated or not what its place promises."""


@dataclass(frozen=True)
class Known:
    """What a data set must look like to be believed, and where torchvision's class of that name puts its files.

    fetched: for each split the files in the order of their images. columns: names the labels go by in Parquet.
    """

    title: str
    counts: Mapping[str, int]  # images of every split
    shape: tuple[int, int, int]  # of an image, height, width and channels
    torchvision: str  # the folder of its files there
    fetched: Mapping[str, Sequence[str]]
    classes: int = 10
    columns: tuple[str, ...] = ("label",)


KNOWN = {
    "mnist": Known(
        "MNIST",
        {"train": 60_000, "test": 10_000},
        (28, 28, 1),
        "MNIST",
        {
            split: [f"MNIST/raw/{stem}-images-idx3-ubyte", f"MNIST/raw/{stem}-labels-idx1-ubyte"]
            for split, stem in (("train", "train"), ("test", "t10k"))
        },
    ),
    "cifar10": Known(
        "CIFAR-10",
        {"train": 50_000, "test": 10_000},
        (32, 32, 3),
        "CIFAR10",
        {
            "train": [f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)],
            "test": ["cifar-10-batches-py/test_batch"],
        },
    ),
    "cifar100": Known(
        "CIFAR-100",
        {"train": 50_000, "test": 10_000},
        (32, 32, 3),
        "CIFAR100",
        {"train": ["cifar-100-python/train"], "test": ["cifar-100-python/test"]},
        classes=100,
        columns=("fine_label", "label"),
    ),
}
"""The image sets that the book knows, by name."""


def source(folder: Path, name: str, known: Known, split: str) -> Path:
    """Return the Parquet file of a split, or else the folder torchvision has filled.

    Raises: DataMissing with the three ways to get the files.
    """
    path = folder / f"{split}.parquet"
    if path.is_file():
        return path
    if any((folder / file).exists() for file in known.fetched[split]):
        return folder
    raise DataMissing(
        f"{known.title} is not here: no {split}.parquet in {folder}. Put train.parquet and test.parquet "
        f"there, or set DESCENT_DATA to a folder that has {name}/train.parquet and {name}/test.parquet, or "
        f"let torchvision fetch it: torchvision.datasets.{known.torchvision}({str(folder)!r}, download=True)"
    )


def read(path: Path, known: Known, split: str) -> Arrays:
    """Return images (N, H, W, C) uint8, labels (N,) int64, classes and title of a split.

    Raises: DataDamaged naming the file, what is wrong with it and what to do.
    """
    if path.suffix == ".parquet":
        return _from_parquet(path, known, split)
    files = [path / file for file in known.fetched[split]]
    for file in files:
        if not file.is_file():
            raise DataDamaged(f"{file} is missing, though others of {known.title} are there. {_again(known, path)}")
    arrange = _from_idx if known.torchvision == "MNIST" else _from_batches
    return arrange(files, known, path) | {"title": np.array(known.title)}


def _again(known: Known, folder: Path) -> str:
    return (
        f"Delete it and let torchvision fetch it again, torchvision.datasets.{known.torchvision}({str(folder)!r}, "
        f"download=True), or put train.parquet and test.parquet into {folder}"
    )


def _from_parquet(path: Path, known: Known, split: str) -> Arrays:
    import pyarrow
    import pyarrow.parquet as parquet

    _check_frame(path, known)
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataDamaged(
            f"{path} cannot be read as {known.title} ({type(error).__name__}: {error}). Fetch it again"
        ) from error
    if table.num_rows != known.counts[split]:
        raise DataDamaged(
            f"{path} holds {table.num_rows} images; {known.title} {split} has {known.counts[split]}. Fetch it again"
        )
    image, label = _columns(path, known, table)
    encoded = table[image].combine_chunks().field("bytes").to_pylist()
    lossy = any(data.startswith(b"\xff\xd8") for data in encoded if data)
    return {
        "images": np.stack([_picture(data, known, f"{path}, image {i}") for i, data in enumerate(encoded)]),
        "labels": table[label].to_numpy().astype(np.int64),
        "classes": np.array(_class_names(table.schema.metadata or {}, label, known.classes)),
        "title": np.array(f"{known.title} (JPEG)" if lossy else known.title),
    }


def _check_frame(path: Path, known: Known) -> None:
    """Look at a file's size, first and last bytes, before anything tries to make sense of it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, size - 4))
        tail = file.read()
    trouble = ""
    if size == 0:
        trouble = "is empty"
    elif head.startswith(b"\x80"):
        trouble = "is a pickle, not Parquet; pickles are never loaded here, because loading one runs what is in it"
    elif head != _MARK:
        trouble = f"is not a Parquet file: it begins with {head!r} instead of {_MARK!r}"
    elif size < 12 or tail != _MARK:
        trouble = f"is truncated: its {size} bytes do not end with {_MARK!r}"
    if trouble:
        raise DataDamaged(f"{path} {trouble}. Replace it by the Parquet file of {known.title}")


def _columns(path: Path, known: Known, table: Any) -> tuple[str, str]:
    """Return the names of the image and the label column of a pyarrow table."""
    from pyarrow import types

    def pictures(kind: Any) -> bool:
        return bool(types.is_struct(kind)) and kind.get_field_index("bytes") >= 0

    kinds = {field.name: field.type for field in table.schema}
    image = next((c for c in ("image", "img") if c in kinds and pictures(kinds[c])), None)
    label = next((c for c in known.columns if c in kinds and types.is_integer(kinds[c])), None)
    if image is None or label is None or table[label].null_count:
        raise DataDamaged(
            f"{path} has the columns {', '.join(f'{name}: {kind}' for name, kind in kinds.items())}; {known.title} "
            "needs a struct column image or img with field bytes, and a column of whole numbers, one for every image, "
            f"called {' or '.join(known.columns)}. Is it another data set's file? Fetch it again"
        )
    return image, label


def _class_names(metadata: Mapping[bytes, bytes], column: str, count: int) -> list[str]:
    """Return the names a file gives to its classes, under a plain key or as the hub of data sets does, or numbers."""
    names = metadata.get(b"classes", b"").decode().split(",")
    with suppress(KeyError, TypeError, ValueError):  # not from the hub, or not told there
        names = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    return list(names) if len(names) == count else [str(i) for i in range(count)]


def _picture(data: bytes | None, known: Known, where: str) -> NDArray[np.uint8]:
    """Return the pixels of one encoded picture; they are decoded only where its header states the size they must have.

    Raises: DataDamaged naming the picture, also for other formats, some of which PIL hands to programs.
    """
    from PIL import Image, UnidentifiedImageError

    height, width, channels = known.shape
    pixels = None
    try:
        with Image.open(io.BytesIO(data or b""), formats=_FORMATS) as picture:
            size = picture.size
            if size == (width, height):
                pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except UnidentifiedImageError:
        raise DataDamaged(
            f"{where}: the picture cannot be decoded, it is no {' or '.join(_FORMATS)}. Fetch the file again"
        ) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataDamaged(
            f"{where}: the picture cannot be decoded ({type(error).__name__}: {error}). Fetch the file again"
        ) from error
    if pixels is None:
        raise DataDamaged(
            f"{where}: {size[0]} × {size[1]} pixels, but {known.title} has {width} × {height}. "
            "Is it another data set's file? Fetch it again"
        )
    return pixels.reshape(known.shape)


def _from_idx(files: Sequence[Path], known: Known, folder: Path) -> Arrays:
    images, labels = (
        _idx(file, known, folder, sizes) for file, sizes in zip(files, (known.shape[:2], ()), strict=True)
    )
    return {
        "images": images.reshape(-1, *known.shape),
        "labels": labels.astype(np.int64),
        "classes": np.array([str(i) for i in range(known.classes)]),
    }


def _idx(file: Path, known: Known, folder: Path, sizes: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read MNIST's own format: 0x801 + number of sizes, count and sizes as four bytes each, highest first; bytes."""
    data, start = file.read_bytes(), 8 + 4 * len(sizes)
    head = np.frombuffer(data[:start].ljust(start, b"\0"), ">u4").tolist()
    if [head[0], *head[2:]] != [0x801 + len(sizes), *sizes] or len(data) - start != head[1] * math.prod(sizes):
        raise DataDamaged(
            f"{file} is not as torchvision leaves it: {len(data)} bytes that begin with {head}. {_again(known, folder)}"
        )
    return np.frombuffer(data, np.uint8, offset=start).copy()


def _from_batches(files: Sequence[Path], known: Known, folder: Path) -> Arrays:
    batches = []
    for file in files:
        try:
            batches.append(_batch(file.read_bytes(), known.shape))
        except (KeyError, ValueError) as error:
            raise DataDamaged(
                f"{file} is not a batch of {known.title} as torchvision fetches it ({type(error).__name__}: {error}). "
                f"{_again(known, folder)}"
            ) from error
    images, labels = zip(*batches, strict=True)
    return {
        "images": np.concatenate(images),
        "labels": np.concatenate(labels),
        "classes": np.array(_batch_names(files[0].parent, known.classes)),
    }


def _batch(data: bytes, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images (n, H, W, C) and labels (n,) of a pickled batch {data: (n, C·H·W), labels: [n numbers], …}."""
    found = _entries(data)
    height, width, channels = shape
    labels = [v for v in found.get("fine_labels", found.get("labels", [])) if type(v) is int]
    pixels = max((v for v in found["data"] if isinstance(v, str)), key=len).encode("latin-1")
    flags = [v for v in found["data"] if isinstance(v, bool)]
    if not labels or len(pixels) != len(labels) * math.prod(shape):
        raise ValueError(f"{len(pixels)} bytes of pixels for {len(labels)} labels")
    rows = np.frombuffer(pixels, np.uint8)
    rows = rows.reshape(len(labels), -1, order="F" if flags and flags[-1] else "C")  # numpy's flag: columns first
    images = rows.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array(labels, np.int64)


def _batch_names(folder: Path, count: int) -> list[str]:
    """Return the class names in batches.meta (CIFAR-10) or meta (CIFAR-100), or numbers."""
    names: list[Any] = []
    for file in (folder / "batches.meta", folder / "meta"):
        with suppress(OSError, ValueError):  # only the names are lost
            found = _entries(file.read_bytes())
            names = [v for v in found.get("fine_label_names", found.get("label_names", [])) if isinstance(v, str)]
    return names[:count] if len(names) >= count else [str(i) for i in range(count)]


def _entries(data: bytes) -> dict[str, list[Any]]:
    """Return the texts, numbers and flags that follow each name of `_ENTRIES` in a pickle, without loading it."""
    found: dict[str, list[Any]] = {}
    current: list[Any] = []
    for opcode, value, _ in pickletools.genops(data):
        if opcode.name in _TEXTS and value in _ENTRIES:
            current = found.setdefault(str(value), [])
        elif opcode.name in _TEXTS | _NUMBERS:
            current.append(value)
        elif opcode.name in _FLAGS:
            current.append(_FLAGS[opcode.name])
    return found
