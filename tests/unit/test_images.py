"""Image sets: what is decoded, what is refused, what is cached."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from descent.problems import images

pyarrow = pytest.importorskip("pyarrow")
Image = pytest.importorskip("PIL.Image")
parquet = pytest.importorskip("pyarrow.parquet")

SIZES = {"train": 200, "test": 100}


def _picture(rng: np.random.Generator, label: int, kind: str) -> bytes:
    pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    pixels[0, 0] = label
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _write(
    folder: Path, split: str, *, labels: np.ndarray | None = None, kind: str = "PNG", count: int | None = None
) -> Path:
    rng = np.random.Generator(np.random.Philox(1))
    labels = np.arange(count or SIZES[split]) % 10 if labels is None else labels
    structs = [{"bytes": _picture(rng, int(label), kind), "path": "x"} for label in labels]
    table = pyarrow.table({"img": structs, "label": pyarrow.array(labels, pyarrow.int64())})
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.replace_schema_metadata({"classes": ",".join("abcdefghij")}), folder / f"{split}.parquet")
    return folder / f"{split}.parquet"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root whose CIFAR-10 is a few pictures of 4 × 4 pixels."""
    monkeypatch.setenv("DESCENT_DATA", str(tmp_path))
    monkeypatch.setattr(images, "PROJECT", tmp_path / "project")
    tiny = images._Known("CIFAR-10", SIZES, (4, 4, 3), "CIFAR10")
    monkeypatch.setitem(images._KNOWN, "cifar10", tiny)
    return tmp_path


def test_digits_are_shuffled_whole_and_balanced() -> None:
    digits = images.load("digits")
    assert digits.images.shape == (1797, 8, 8, 1)
    assert digits.images.dtype == torch.uint8
    assert int(digits.images.max()) == digits.peak == 16
    assert torch.bincount(digits.labels).min() >= 174
    assert torch.equal(images.load("digits").labels, digits.labels)
    assert len(set(digits.labels[:20].tolist())) > 5  # not the file's own 0, 1, 2, … order, nor sorted
    assert digits.labels[:10].tolist() != list(range(10))


def test_centred_pixels_have_zero_means_and_one_global_deviation() -> None:
    flat = images.centred(images.load("digits").images, torch.float64)
    assert flat.shape == (1797, 64)
    assert float(flat.mean(0).abs().max()) < 1e-12
    assert float(flat.square().mean()) == pytest.approx(1.0, rel=1e-12)


def test_pictures_keep_their_labels_through_the_shuffle(root: Path) -> None:
    _write(root / "cifar10", "train")
    data = images.load("cifar10")
    assert torch.equal(data.images[:, 0, 0, 0].long(), data.labels)  # the label is written into the first pixel
    assert data.classes == tuple("abcdefghij")
    assert data.title == "CIFAR-10"
    assert not torch.equal(data.labels, torch.arange(200) % 10)


def test_lossy_pictures_are_named_so(root: Path) -> None:
    _write(root / "cifar10", "train", kind="JPEG")
    assert images.load("cifar10").title == "CIFAR-10 (JPEG)"


def test_missing_data_names_three_ways_out(root: Path) -> None:
    with pytest.raises(
        images.DataMissing, match=r"DESCENT_DATA[\s\S]*train\.parquet[\s\S]*torchvision\.datasets\.CIFAR10"
    ):
        images.load("cifar10")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no data set 'imagenet'"):
        images.load("imagenet")
    with pytest.raises(ValueError, match="split 'validation'"):
        images.load("mnist", "validation")


def test_damaged_files_are_refused_by_name(root: Path) -> None:
    path = _write(root / "cifar10", "train")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(images.DataDamaged, match=r"train\.parquet cannot be read"):
        images.load("cifar10")
    _write(root / "cifar10", "train", count=150)
    with pytest.raises(images.DataDamaged, match="150 labels"):
        images.load("cifar10")
    parquet.write_table(pyarrow.table({"label": [1, 2]}), path)
    with pytest.raises(images.DataDamaged, match="struct column"):
        images.load("cifar10")


def test_one_broken_picture_is_enough(root: Path) -> None:
    path = _write(root / "cifar10", "train")
    table = parquet.read_table(path)
    structs: list[dict[str, Any]] = table["img"].to_pylist()
    structs[7]["bytes"] = b"not a picture"
    parquet.write_table(pyarrow.table({"img": structs, "label": table["label"]}), path)
    with pytest.raises(images.DataDamaged, match=r"train\.parquet"):
        images.load("cifar10")


def test_unbalanced_labels_are_refused(root: Path) -> None:
    labels = np.zeros(200, dtype=np.int64)
    labels[:9] = np.arange(1, 10)
    _write(root / "cifar10", "train", labels=labels)
    with pytest.raises(images.DataDamaged, match="unbalanced"):
        images.load("cifar10")
    with pytest.raises(images.DataDamaged, match="sorted by class"):
        images._check_balance(torch.arange(10).repeat_interleave(100)[:400], 10, "sorted")
    with pytest.raises(images.DataDamaged, match="labels run from 0 to 10"):
        images._check_balance(torch.arange(11).repeat(50), 10, "eleven")


def test_the_cache_is_used_and_a_damaged_copy_is_made_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(root / "cifar10", "train")
    first = images.load("cifar10")
    kept = next((root / "decoded").glob("cifar10-train-*"))
    assert not list(kept.glob("*.part"))
    (kept / "images.npy").write_bytes(b"damaged")
    assert torch.equal(images.load("cifar10").images, first.images)
    monkeypatch.setattr(images, "_decode", None)  # whoever decodes now fails
    assert torch.equal(images.load("cifar10").images, first.images)


def test_a_changed_file_is_not_served_from_the_cache(root: Path) -> None:
    _write(root / "cifar10", "train")
    before = images.load("cifar10").images
    _write(root / "cifar10", "train", kind="JPEG")
    assert not torch.equal(images.load("cifar10").images, before)


def test_a_read_only_root_sends_the_cache_into_the_project(root: Path) -> None:
    _write(root / "cifar10", "train")
    os.chmod(root, 0o555)
    try:
        images.load("cifar10")
    finally:
        os.chmod(root, 0o755)
    assert not (root / "decoded").exists()
    assert list((root / "project" / "data" / "cache" / "decoded").glob("cifar10-train-*"))


def test_torchvision_files_do_too(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")

    class Fetched:
        """What torchvision gives for files it has downloaded."""

        def __init__(self, folder: Path, *, train: bool, download: bool) -> None:
            assert train
            assert not download
            self.data = np.zeros((200, 4, 4, 3), dtype=np.uint8)
            self.targets, self.classes = [i % 10 for i in range(200)], list("abcdefghij")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fetched)
    (root / "cifar10" / "cifar-10-batches-py").mkdir(parents=True)
    data = images.load("cifar10")
    assert (len(data), data.title) == (200, "CIFAR-10")


def test_projection_agrees_with_the_singular_values(root: Path) -> None:
    for split in SIZES:
        _write(root / "cifar10", split)
    shown = images.project("cifar10", 5, 150, 80)
    train = images.load("cifar10").take(150).images.flatten(1).double().numpy() / 255
    mean = train.mean(0)
    _, values, rows = np.linalg.svd(train - mean, full_matrices=False)
    scores = (train - mean) @ rows[:5].T
    scale = scores.std()
    assert shown.share == pytest.approx((values[:5] ** 2).sum() / (values**2).sum(), rel=1e-5)
    np.testing.assert_allclose(np.abs(shown.inputs.numpy()), np.abs(scores / scale), atol=2e-4)
    test = images.load("cifar10", "test").take(80).images.flatten(1).double().numpy() / 255
    np.testing.assert_allclose(np.abs(shown.test_inputs.numpy()), np.abs((test - mean) @ rows[:5].T / scale), atol=2e-4)
    again = images.project("cifar10", 5, 150, 80)  # from the cache
    assert torch.equal(again.inputs, shown.inputs)
    assert again.digest == shown.digest


def test_take_wants_what_is_there() -> None:
    digits = images.load("digits")
    assert torch.equal(digits.take(100, skip=50).labels, digits.labels[50:150])
    with pytest.raises(ValueError, match="cannot take 1000 after 1000"):
        digits.take(1000, skip=1000)
