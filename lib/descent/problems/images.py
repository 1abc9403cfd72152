"""Image sets as one uint8 tensor each: scikit-learn's digits always, MNIST and CIFAR-10 from local files.

Files are looked for under $DESCENT_DATA, or `data/cache` of the project when that is not set:
`<root>/<name>/{train,test}.parquet` with a struct column (`image` or `img`: encoded `bytes`) and `label`, or
the files torchvision downloads into `<root>/<name>`. Nothing is downloaded here. Decoding happens once: the
arrays are kept as `.npy` beside their checksums, in the data root or, if that is read-only, in the project.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from descent.streams import Purpose, Streams

__all__ = ["DataDamaged", "DataMissing", "ImageSet", "Projected", "centred", "data_root", "examples", "load", "project"]

PROJECT = Path(__file__).resolve().parents[3]
_SHUFFLE = torch.tensor([20_180_214])  # one fixed order for everybody: not a master seed
_VERSION = 1  # of decoding and projecting; raise it when either changes what lands in the cache
Arrays = dict[str, NDArray[Any]]


class DataMissing(FileNotFoundError):
    """A data set is not on this machine."""


class DataDamaged(ValueError):
    """A data file is truncated or not what its place promises."""


@dataclass(frozen=True)
class _Known:
    """What a data set must look like to be believed."""

    title: str
    counts: Mapping[str, int]
    shape: tuple[int, int, int]
    torchvision: str


_KNOWN = {
    "mnist": _Known("MNIST", {"train": 60_000, "test": 10_000}, (28, 28, 1), "MNIST"),
    "cifar10": _Known("CIFAR-10", {"train": 50_000, "test": 10_000}, (32, 32, 3), "CIFAR10"),
}


@dataclass(frozen=True)
class ImageSet:
    """Shuffled images (N, H, W, C) uint8 with grey levels 0…`peak`, and labels (N,) int64.

    `title` is how results name the data, including "(JPEG)" for pictures that were stored with loss.
    """

    title: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    peak: int = 255

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.labels)

    def take(self, count: int, skip: int = 0) -> ImageSet:
        """Return images skip…skip+count of the fixed order; every class must be fairly represented."""
        if not 0 < count <= len(self) - skip:
            raise ValueError(f"cannot take {count} after {skip}: {self.title} has {len(self)} images")
        part = slice(skip, skip + count)
        _check_balance(self.labels[part], len(self.classes), self.title)
        return ImageSet(self.title, self.images[part], self.labels[part], self.classes, self.peak)


def load(name: str, split: str = "train") -> ImageSet:
    """Return a split of "digits" (which has only "train"), "mnist" or "cifar10", in one fixed shuffled order.

    Raises: DataMissing with the ways to get the files; DataDamaged naming the file that cannot be trusted.
    """
    if name == "digits":
        return _digits()
    known = _expect(name, split)
    path = _source(name, split)
    if path.suffix == ".parquet":
        arrays = _cached(f"{name}-{split}", _checksum(path), lambda: _decode(path, known))
    else:
        arrays = _from_torchvision(path, known, split)
    _check_arrays(arrays, known, split, path)
    return _shuffled(
        ImageSet(
            str(arrays["title"]),
            torch.from_numpy(arrays["images"]),
            torch.from_numpy(arrays["labels"]),
            tuple(str(c) for c in arrays["classes"]),
        )
    )


def centred(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return (N, D): each pixel minus its mean over the set, all divided by one global standard deviation."""
    flat = images.flatten(1).to(torch.float64)
    flat = flat - flat.mean(0)
    return (flat / flat.std(correction=0)).to(dtype)


def examples(name: str, count: int | None = None, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Return the first `count` training images (default: all) as centred inputs (N, D) and labels (N,)."""
    data = load(name)
    data = data.take(count or len(data))
    return centred(data.images).to(device), data.labels.to(device)


@dataclass(frozen=True)
class Projected:
    """A data set on its leading principal components, scaled to overall unit variance on the training part.

    inputs (N, k), labels (N,); test_inputs (M, k), test_labels (M,); `share` of the variance that is kept;
    `digest` of the source files and the sizes.
    """

    title: str
    inputs: Tensor
    labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    share: float
    digest: str


def project(name: str, components: int, count: int, test_count: int) -> Projected:
    """Return `count` training and `test_count` test images on the training part's principal components.

    The projection is cached under the checksum of the source files and the sizes.

    Raises: DataMissing, DataDamaged as `load` does.
    """
    files = [_source(name, split) for split in ("train", "test") if _expect(name, split)]
    key = json.dumps([[_checksum(file) for file in files], components, count, test_count])
    digest = hashlib.sha256(key.encode()).hexdigest()
    arrays = _cached(f"{name}-pca{components}", digest, lambda: _project(name, components, count, test_count))
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items() if k not in ("title", "share")}
    return Projected(title=str(arrays["title"]), share=float(arrays["share"]), digest=digest[:16], **tensors)


def data_root() -> Path:
    """Return the folder data sets are looked for in: $DESCENT_DATA, or data/cache of the project."""
    named = os.environ.get("DESCENT_DATA")
    return Path(named) if named else PROJECT / "data" / "cache"


def _expect(name: str, split: str) -> _Known:
    if name not in _KNOWN or split not in _KNOWN[name].counts:
        raise ValueError(
            f"no data set {name!r} with split {split!r}; there are digits, {', '.join(_KNOWN)}, "
            "the last two with splits train and test"
        )
    return _KNOWN[name]


def _source(name: str, split: str) -> Path:
    """Return the Parquet file of a split, or else the folder torchvision fills."""
    folder = data_root() / name
    path = folder / f"{split}.parquet"
    if path.is_file():
        return path
    if (folder / "cifar-10-batches-py").is_dir() or (folder / "MNIST" / "raw").is_dir():
        return folder
    known = _KNOWN[name]
    raise DataMissing(
        f"{known.title} is not here: no {split}.parquet in {folder}. Put train.parquet and test.parquet "
        f"there, or set DESCENT_DATA to a folder that has {name}/train.parquet and {name}/test.parquet, or "
        f"let torchvision fetch it: torchvision.datasets.{known.torchvision}({str(folder)!r}, download=True)"
    )


def _decode(path: Path, known: _Known) -> Arrays:
    """Return images, labels, classes and title of one Parquet file."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path)
        column = next(c for c in ("image", "img") if c in table.column_names)
        encoded = table[column].combine_chunks().field("bytes").to_pylist()
        labels = table["label"].to_numpy().astype(np.int64)
        images = np.stack([_picture(data, known) for data in encoded])
    except (pyarrow.ArrowException, OSError, KeyError, ValueError, StopIteration) as error:
        raise DataDamaged(
            f"{path} cannot be read as {known.title} ({type(error).__name__}: {error}); fetch it again. "
            "Expected: a struct column image or img with field bytes, and a column label"
        ) from error
    classes = (table.schema.metadata or {}).get(b"classes", b"0,1,2,3,4,5,6,7,8,9").decode().split(",")
    lossy = any(data.startswith(b"\xff\xd8") for data in encoded)
    return {
        "images": images,
        "labels": labels,
        "classes": np.array(classes),
        "title": np.array(f"{known.title} (JPEG)" if lossy else known.title),
    }


def _picture(data: bytes, known: _Known) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        pixels = np.asarray(picture.convert("L" if known.shape[2] == 1 else "RGB"))
    return pixels.reshape(known.shape)


def _from_torchvision(folder: Path, known: _Known, split: str) -> Arrays:
    import torchvision

    data = getattr(torchvision.datasets, known.torchvision)(folder, train=split == "train", download=False)
    images = np.asarray(data.data, dtype=np.uint8)
    labels = np.asarray(data.targets, dtype=np.int64)
    return {
        "images": images.reshape(len(images), *known.shape),
        "labels": labels,
        "classes": np.array(data.classes),
        "title": np.array(known.title),
    }


def _check_arrays(arrays: Arrays, known: _Known, split: str, path: Path) -> None:
    count, labels = known.counts[split], arrays["labels"]
    if len(labels) != count or arrays["images"].shape != (count, *known.shape):
        raise DataDamaged(
            f"{path} holds {len(labels)} labels and images of shape {arrays['images'].shape}; "
            f"{known.title} {split} has {count} of shape {known.shape}. Fetch it again"
        )
    _check_balance(torch.from_numpy(labels), len(arrays["classes"]), str(path))


def _check_balance(labels: Tensor, classes: int, where: str) -> None:
    """Refuse labels in which a class strays from its fair share by a quarter, beyond what chance does."""
    if labels.min() < 0 or labels.max() >= classes:
        raise DataDamaged(
            f"{where}: labels run from {int(labels.min())} to {int(labels.max())}, expected 0 to {classes - 1}"
        )
    shares = torch.bincount(labels, minlength=classes) * classes / len(labels)
    slack = 4 * (classes / len(labels)) ** 0.5  # a small random part strays by a few standard deviations
    if shares.min() < 0.75 - slack or shares.max() > 1.25 + slack:
        raise DataDamaged(
            f"{where}: classes are unbalanced, at {[round(float(s), 2) for s in shares]} of their fair share; "
            "a file sorted by class must be shuffled before it is cut"
        )


def _shuffled(data: ImageSet) -> ImageSet:
    order = Streams(_SHUFFLE).permutation(Purpose.ORDER, 0, len(data))[0]
    return ImageSet(data.title, data.images[order], data.labels[order], data.classes, data.peak)


def _digits() -> ImageSet:
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = torch.from_numpy(raw.images.astype(np.uint8)).unsqueeze(-1)
    labels = torch.from_numpy(raw.target.astype(np.int64))
    _check_balance(labels, 10, "digits")
    return _shuffled(ImageSet("digits", images, labels, tuple("0123456789"), peak=16))


def _project(name: str, components: int, count: int, test_count: int) -> Arrays:
    """Project by the exact leading eigenvectors of the pixel covariance."""
    from scipy.linalg import eigh

    train, test = load(name).take(count), load(name, "test").take(test_count)
    pixels, others = (part.images.flatten(1).to(torch.float32) / part.peak for part in (train, test))
    mean = pixels.mean(0)
    pixels, others = pixels - mean, others - mean
    covariance = (pixels.T @ pixels).numpy() / count
    size = len(covariance)
    values, vectors = eigh(covariance, subset_by_index=(size - components, size - 1))
    basis = torch.from_numpy(_signed(vectors[:, ::-1].copy()))
    inputs = pixels @ basis
    scale = inputs.std(correction=0)
    return {
        "inputs": (inputs / scale).numpy(),
        "labels": train.labels.numpy(),
        "test_inputs": (others @ basis / scale).numpy(),
        "test_labels": test.labels.numpy(),
        "title": np.array(train.title),
        "share": np.array(values.sum() / covariance.trace()),
    }


def _signed(vectors: NDArray[Any]) -> NDArray[Any]:
    """Give each column the sign that makes its largest entry positive: eigenvectors come with either."""
    largest = vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])]
    return np.asarray(vectors * np.sign(largest))


def _checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and sizes in a folder."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    listing = sorted((str(f.relative_to(path)), f.stat().st_size) for f in path.rglob("*") if f.is_file())
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def _cached(stem: str, digest: str, make: Callable[[], Arrays]) -> Arrays:
    """Return `make()` from the cache; a copy whose checksum does not match is made again."""
    folder = _cache_folder() / f"{stem}-v{_VERSION}-{digest[:16]}"
    stored = _read(folder)
    if stored is not None:
        return stored
    arrays = make()
    _write(folder, arrays)
    return arrays


def _cache_folder() -> Path:
    """Return the data root where it may be written, else the project's own cache.

    Permission bits are looked at too: a superuser may write even where a folder is meant to be read-only.
    """
    root = data_root()
    usable = root.is_dir() and os.access(root, os.W_OK) and root.stat().st_mode & 0o222
    return (root if usable else PROJECT / "data" / "cache") / "decoded"


def _read(folder: Path) -> Arrays | None:
    try:
        sums = json.loads((folder / "checksums.json").read_text())
        arrays = {}
        for name, expected in sums.items():
            data = (folder / f"{name}.npy").read_bytes()
            if hashlib.sha256(data).hexdigest() != expected:
                return None
            arrays[name] = np.load(io.BytesIO(data), allow_pickle=False)
        return arrays
    except (OSError, ValueError):
        return None


def _write(folder: Path, arrays: Arrays) -> None:
    """Store each array as .npy, the checksums last; every file appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    sums = {}
    for name, array in arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        sums[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
        _replace(folder / f"{name}.npy", buffer.getvalue())
    _replace(folder / "checksums.json", json.dumps(sums, sort_keys=True).encode())


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    scratch.write_bytes(data)
    os.replace(scratch, path)
