"""Image sets as one tensor each: scikit-learn's digits always, MNIST, CIFAR-10 and CIFAR-100 from local files.

Files are looked for under $DESCENT_DATA, or `data/cache` of the project when that is not set:
`<root>/<name>/{train,test}.parquet` with a struct column (`image` or `img`: encoded `bytes`) and a column `label`
(`fine_label` for CIFAR-100), or the files torchvision downloads into `<root>/<name>`. Nothing is downloaded here,
and no pickle is loaded. Decoding happens once: the arrays are kept as `.npy` beside their checksums, in the data
root or, if that is read-only, in the project.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from descent.data.image_files import KNOWN, Arrays, DataDamaged, DataMissing, Known, read, source
from descent.engine.streams import Purpose, Streams

__all__ = [
    "DataDamaged",
    "DataMissing",
    "ImageSet",
    "Pictures",
    "Projected",
    "centred",
    "channels_first",
    "data_root",
    "examples",
    "load",
    "pair",
    "part",
    "pictures",
    "pooled",
    "project",
    "redrawn",
    "signs",
]

PROJECT = Path(__file__).resolve().parents[3]
_SHUFFLE = torch.tensor([20_180_214])  # one fixed order for everybody: not a master seed
_VERSION = 1  # of decoding and projecting; raise it when either changes what lands in the cache


@dataclass(frozen=True)
class ImageSet:
    """Shuffled images (N, H, W, C) with grey levels 0…`peak`, uint8 (float32 once pooled), and labels (N,) int64.

    `title` is how results name the data, including "(JPEG)" for pictures that were stored with loss.
    """

    title: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]  # their names
    peak: int = 255  # the highest grey level

    def __len__(self) -> int:
        """Return the number of images N."""
        return len(self.labels)

    def take(self, count: int, skip: int = 0) -> ImageSet:
        """Return images skip…skip+count of the fixed order; every class must be fairly represented."""
        if not 0 < count <= len(self) - skip:
            raise ValueError(f"cannot take {count} after {skip}: {self.title} has {len(self)} images")
        part = slice(skip, skip + count)
        _check_balance(self.labels[part], len(self.classes), self.title)
        return replace(self, images=self.images[part], labels=self.labels[part])


def load(name: str, split: str = "train") -> ImageSet:
    """Return a split of "digits" (only "train"), "mnist", "cifar10" or "cifar100", in one fixed shuffled order.

    Raises: DataMissing with the ways to get the files; DataDamaged naming the file that cannot be trusted.
    """
    if name == "digits":
        return _digits()
    known = _expect(name, split)
    path = _source(name, split)
    if path.suffix == ".parquet":
        arrays = _cached(f"{name}-{split}", _checksum(known, path, split), lambda: read(path, known, split))
    else:
        arrays = read(path, known, split)
    _check_arrays(arrays, known, split, path)
    return _shuffled(
        ImageSet(
            str(arrays["title"]),
            torch.from_numpy(arrays["images"]),
            torch.from_numpy(arrays["labels"]),
            tuple(str(c) for c in arrays["classes"]),
        )
    )


def centred(images: Tensor, dtype: torch.dtype = torch.float32, like: Tensor | None = None) -> Tensor:
    """Return (N, D): each pixel minus its mean over the set, all divided by one global standard deviation.

    like: images to take mean and deviation from, for test images those of the training set. images: (N, …), flattened
    here.
    """
    flat = images.flatten(1).to(torch.float64)
    model = flat if like is None else like.flatten(1).to(torch.float64)
    mean = model.mean(0)
    return ((flat - mean) / (model - mean).std(correction=0)).to(dtype)


def channels_first(images: Tensor, dtype: torch.dtype = torch.float32, like: Tensor | None = None) -> Tensor:
    """Return (N, C, H, W) for a convolutional net: each channel minus its mean, divided by its standard deviation.

    like: images to take mean and deviation from, for test images those of the training set.
    """
    planes, model = (x.permute(0, 3, 1, 2).to(dtype).contiguous() for x in (images, images if like is None else like))
    mean = model.mean((0, 2, 3), keepdim=True, dtype=torch.float64)
    square = model.square().mean((0, 2, 3), keepdim=True, dtype=torch.float64)
    return (planes - mean.to(dtype)) / (square - mean.square()).sqrt().to(dtype)


def pooled(data: ImageSet, side: int = 2) -> ImageSet:
    """Return the images averaged over squares of `side` pixels: MNIST's 28 × 28 become 14 × 14. Levels are exact."""
    height, width = data.images.shape[1:3]
    if side < 1 or height % side or width % side:
        raise ValueError(f"{data.title}: images of {height} × {width} cannot be cut into squares of {side}")
    small = avg_pool2d(data.images.permute(0, 3, 1, 2).to(torch.float32), side).permute(0, 2, 3, 1).contiguous()
    return replace(data, title=f"{data.title}, {height // side} × {width // side}", images=small)


def part(name: str, split: str, count: int, side: int = 1) -> ImageSet:
    """Return the first images of a split, averaged over squares of `side` pixels; 1 leaves them as they are."""
    found = load(name, split).take(count)
    return found if side == 1 else pooled(found, side)


def pair(data: ImageSet, first: str, second: str) -> ImageSet:
    """Return the images of two classes by name, in their order, labelled 0 and 1; see `signs` for ∓1."""
    missing = [name for name in (first, second) if name not in data.classes]
    if missing or first == second:
        raise ValueError(
            f"{data.title}: need two different classes out of {', '.join(data.classes)}; got {first}, {second}"
        )
    old = [data.classes.index(name) for name in (first, second)]
    rows = ((data.labels == old[0]) | (data.labels == old[1])).nonzero().squeeze(1)
    labels = (data.labels[rows] == old[1]).to(torch.int64)
    title = f"{data.title}, {first} or {second}"
    return replace(data, title=title, images=data.images[rows], labels=labels, classes=(first, second))


def signs(labels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return −1 for label 0 and +1 for label 1."""
    if labels.min() < 0 or labels.max() > 1:
        raise ValueError(f"signs are for the labels 0 and 1, got {sorted(set(labels.tolist()))}; take a pair first")
    return (2 * labels - 1).to(dtype)


def redrawn(data: ImageSet, share: float, seed: int = 0) -> ImageSet:
    """Return the set with round(share·N) labels redrawn uniformly from all classes, a random one may be the true one.

    Who is redrawn and to what depends on (N, seed) alone, and a larger share keeps what a smaller one has redrawn.

    share: of the labels that are drawn anew.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be between 0 and 1, got {share}")
    streams, n = Streams(_SHUFFLE + seed), len(data)
    rows = streams.permutation(Purpose.LABEL, 0, n, slice(0, round(share * n)))[0]
    labels = data.labels.clone()
    labels[rows] = streams.integers(Purpose.LABEL, 1, len(data.classes), (n,))[0, : len(rows)]
    return replace(data, title=f"{data.title}, {share:.0%} of the labels redrawn", labels=labels)


def examples(name: str, count: int | None = None, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Return the first `count` training images (default: all) as centred inputs (N, D) and labels (N,)."""
    data = load(name)
    data = data.take(count or len(data))
    return centred(data.images).to(device), data.labels.to(device)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Training and test images (n, C, H, W) for convolutional nets, with labels (n,)."""

    title: str
    inputs: Tensor
    labels: Tensor
    test_inputs: Tensor  # as `inputs`
    test_labels: Tensor  # as `labels`


def pictures(name: str, count: int, test_count: int, side: int = 1, device: str = "cpu") -> Pictures:
    """Return the first images of both splits, averaged over squares of `side` pixels; channels as in training.

    Raises: DataMissing, DataDamaged as `load` does.
    """
    train, test = part(name, "train", count, side), part(name, "test", test_count, side)
    inputs, others = (channels_first(some.images, like=train.images).to(device) for some in (train, test))
    return Pictures(train.title, inputs, train.labels.to(device), others, test.labels.to(device))


@dataclass(frozen=True)
class Projected:
    """A data set on its leading principal components, scaled to overall unit variance on the training part.

    inputs (N, k), labels (N,); test_inputs (M, k), test_labels (M,); `share` of the variance that is kept;
    `digest` of the source files and the sizes.
    """

    title: str
    inputs: Tensor
    labels: Tensor
    test_inputs: Tensor  # as `inputs`
    test_labels: Tensor  # as `labels`
    share: float
    digest: str  # of source files and sizes


def project(name: str, components: int, count: int, test_count: int) -> Projected:
    """Return `count` training and `test_count` test images on the training part's principal components.

    The projection is cached under the checksum of the source files and the sizes.

    components: how many principal components are kept.

    Raises: DataMissing, DataDamaged as `load` does.
    """
    sums = [_checksum(_expect(name, split), _source(name, split), split) for split in ("train", "test")]
    key = json.dumps([sums, components, count, test_count])
    digest = hashlib.sha256(key.encode()).hexdigest()
    arrays = _cached(f"{name}-pca{components}", digest, lambda: _project(name, components, count, test_count))
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items() if k not in ("title", "share")}
    return Projected(title=str(arrays["title"]), share=float(arrays["share"]), digest=digest[:16], **tensors)


def data_root() -> Path:
    """Return the folder data sets are looked for in: $DESCENT_DATA, or data/cache of the project."""
    named = os.environ.get("DESCENT_DATA")
    return Path(named) if named else PROJECT / "data" / "cache"


def _expect(name: str, split: str) -> Known:
    if name not in KNOWN or split not in KNOWN[name].counts:
        raise ValueError(
            f"no data set {name!r} with split {split!r}; there are digits, {', '.join(KNOWN)}, "
            "all but digits with splits train and test"
        )
    return KNOWN[name]


def _source(name: str, split: str) -> Path:
    return source(data_root() / name, name, KNOWN[name], split)


def _check_arrays(arrays: Arrays, known: Known, split: str, path: Path) -> None:
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
            f"{where}: labels run from {int(labels.min())} to {int(labels.max())}, expected 0 to {classes - 1}. "
            "That is another data set's file: fetch the right one"
        )
    shares = torch.bincount(labels, minlength=classes) * classes / len(labels)
    slack = 4 * (classes / len(labels)) ** 0.5  # a small random part strays by a few standard deviations
    if shares.min() < 0.75 - slack or shares.max() > 1.25 + slack:
        raise DataDamaged(
            f"{where}: classes are unbalanced, at {shares.min():.2f} to {shares.max():.2f} of their fair share; "
            "a file sorted by class must be shuffled before it is cut, and one that was cut fetched again"
        )


def _shuffled(data: ImageSet) -> ImageSet:
    order = Streams(_SHUFFLE).permutation(Purpose.ORDER, 0, len(data))[0]
    return replace(data, images=data.images[order], labels=data.labels[order])


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


def _checksum(known: Known, path: Path, split: str) -> str:
    """Return the SHA-256 of a Parquet file, or of what a folder holds of the files torchvision fetches for a split."""
    if path.is_file():
        return _file_checksum(path)
    sums = {name: _file_checksum(path / name) for name in known.fetched[split] if (path / name).is_file()}
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def _file_checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
