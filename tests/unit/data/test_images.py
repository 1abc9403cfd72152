"""Image sets: what is decoded, what is refused, what is cached."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from descent.data import images
from descent.data.image_files import KNOWN

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
    """A data root whose sets are a few pictures of 4 × 4 pixels, CIFAR-100 with 20 classes."""
    monkeypatch.setenv("DESCENT_DATA", str(tmp_path))
    monkeypatch.setattr(images, "PROJECT", tmp_path / "project")
    for name, known in KNOWN.items():
        shape = (4, 4, known.shape[2])
        monkeypatch.setitem(KNOWN, name, replace(known, counts=SIZES, shape=shape))
    monkeypatch.setitem(KNOWN, "cifar100", replace(KNOWN["cifar100"], classes=20))
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


@pytest.mark.parametrize(("name", "fetcher"), [("mnist", "MNIST"), ("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_missing_data_names_three_ways_out(root: Path, name: str, fetcher: str) -> None:
    with pytest.raises(images.DataMissing) as caught:
        images.load(name)
    text = str(caught.value)
    assert f"no train.parquet in {root / name}" in text
    assert "Put train.parquet and test.parquet there" in text
    assert f"DESCENT_DATA to a folder that has {name}/train.parquet" in text
    assert f"torchvision.datasets.{fetcher}('{root / name}', download=True)" in text


def test_digits_need_no_folder_and_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCENT_DATA", str(tmp_path / "absent"))
    monkeypatch.setattr(images, "PROJECT", tmp_path / "project")
    inputs, labels = images.examples("digits", 300)
    assert inputs.shape == (300, 64)
    assert labels.shape == (300,)
    assert not list(tmp_path.iterdir())


def test_cifar_100_takes_the_fine_labels(root: Path) -> None:
    labels = np.arange(200) % 20
    path = _write(root / "cifar100", "train", labels=labels)
    table = parquet.read_table(path)
    coarse = pyarrow.array(labels // 5, pyarrow.int64())
    names = {"info": {"features": {"fine_label": {"names": [f"kind {i}" for i in range(20)]}}}}
    renamed = table.rename_columns(["img", "fine_label"]).append_column("coarse_label", coarse)
    parquet.write_table(renamed.replace_schema_metadata({"huggingface": json.dumps(names)}), path)
    data = images.load("cifar100")
    assert torch.equal(data.images[:, 0, 0, 0].long(), data.labels)
    assert data.classes[7] == "kind 7"
    assert data.title == "CIFAR-100"
    parquet.write_table(renamed.drop_columns(["fine_label"]), path)
    with pytest.raises(images.DataDamaged, match=r"coarse_label: int64; CIFAR-100 needs .* called fine_label or label"):
        images.load("cifar100")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no data set 'imagenet'"):
        images.load("imagenet")
    with pytest.raises(ValueError, match="split 'validation'"):
        images.load("mnist", "validation")


class _Payload:
    """A pickle of this creates the file it was told."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is empty"),
        (b"PAR1 and then nothing more", "is truncated: its 26 bytes do not end with b'PAR1'"),
        (b"<html>not found</html>", "is not a Parquet file: it begins with b'<htm'"),
        (pickle.dumps({"data": 1}), "is a pickle, not Parquet; pickles are never loaded"),
        (b"PAR1 this is rubbish PAR1", "cannot be read as CIFAR-10"),
    ],
)
def test_what_is_not_parquet_is_told_apart(root: Path, contents: bytes, message: str) -> None:
    (root / "cifar10").mkdir()
    (root / "cifar10" / "train.parquet").write_bytes(contents)
    with pytest.raises(images.DataDamaged, match=message) as caught:
        images.load("cifar10")
    assert str(caught.value).startswith(str(root / "cifar10" / "train.parquet"))
    assert "Replace it by the Parquet file of CIFAR-10" in str(caught.value) or "Fetch it again" in str(caught.value)


def test_a_pickle_is_not_loaded_wherever_it_lies(root: Path) -> None:
    payload = pickle.dumps(_Payload(root / "loaded"))
    pickle.loads(payload)  # the trap works
    (root / "loaded").unlink()
    (root / "cifar10").mkdir()
    (root / "cifar10" / "train.parquet").write_bytes(payload)
    with pytest.raises(images.DataDamaged, match="is a pickle"):
        images.load("cifar10")
    for name in ("cifar10", "cifar100"):
        for split in SIZES:
            for file in KNOWN[name].fetched[split]:
                (root / name / file).parent.mkdir(parents=True, exist_ok=True)
                (root / name / file).write_bytes(payload)
    (root / "cifar10" / "train.parquet").unlink()
    for name, first in (("cifar10", "data_batch_1"), ("cifar100", "train")):
        with pytest.raises(images.DataDamaged, match=rf"{first} is not a batch of .* or put train\.parquet and"):
            images.load(name)
    assert not (root / "loaded").exists()


def test_damaged_files_are_refused_by_name(root: Path) -> None:
    path = _write(root / "cifar10", "train")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(images.DataDamaged, match=r"train\.parquet is truncated"):
        images.load("cifar10")
    path.write_bytes(whole[:1000] + b"\0" * 100 + whole[1100:])
    with pytest.raises(images.DataDamaged, match=r"train\.parquet"):
        images.load("cifar10")
    _write(root / "cifar10", "train", count=150)
    with pytest.raises(images.DataDamaged, match=r"train\.parquet holds 150 images; CIFAR-10 train has 200"):
        images.load("cifar10")
    _write(root / "cifar10", "train", labels=np.zeros(0, dtype=np.int64))
    with pytest.raises(images.DataDamaged, match=r"train\.parquet holds 0 images"):
        images.load("cifar10")


def test_other_columns_are_refused(root: Path) -> None:
    path = _write(root / "cifar10", "train")
    table = parquet.read_table(path)
    for wrong in (
        table.drop_columns(["img"]),
        table.drop_columns(["label"]),
        table.set_column(0, "img", pyarrow.array([b"x"] * 200)),
        table.set_column(1, "label", pyarrow.array(["cat"] * 200)),
        table.set_column(1, "label", pyarrow.array([None] + [1] * 199)),
    ):
        parquet.write_table(wrong, path)
        with pytest.raises(images.DataDamaged, match=r"train\.parquet has the columns .* struct column image or img"):
            images.load("cifar10")


def test_pictures_of_another_size_are_refused(root: Path) -> None:
    path = _write(root / "cifar10", "train")
    table = parquet.read_table(path)
    structs: list[dict[str, Any]] = table["img"].to_pylist()
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 8, 3), dtype=np.uint8)).save(buffer, "PNG")  # as many pixels, another shape
    structs[3]["bytes"] = buffer.getvalue()
    parquet.write_table(pyarrow.table({"img": structs, "label": table["label"]}), path)
    with pytest.raises(images.DataDamaged, match=r"train\.parquet, image 3: 8 × 2 pixels, but CIFAR-10 has 4 × 4"):
        images.load("cifar10")


def _with_picture(path: Path, index: int, data: bytes) -> None:
    """Put other bytes into one cell of a file of pictures."""
    table = parquet.read_table(path)
    structs: list[dict[str, Any]] = table["img"].to_pylist()
    structs[index]["bytes"] = data
    parquet.write_table(pyarrow.table({"img": structs, "label": table["label"]}), path)


def test_no_pixel_of_another_size_is_decoded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    decoded, load = [], ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    buffer = io.BytesIO()
    Image.new("1", (600, 700)).save(buffer, "PNG")
    path = _write(root / "cifar10", "train")
    _with_picture(path, 3, buffer.getvalue())
    with pytest.raises(images.DataDamaged, match=r"train\.parquet, image 3: 600 × 700 pixels, but CIFAR-10 has 4 × 4"):
        images.load("cifar10")
    assert set(decoded) == {(4, 4)}


def test_a_cell_is_png_or_jpeg_and_never_reaches_another_decoder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    started: list[object] = []
    picture = Image.new("RGB", (4, 4)).im
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given: started.append(given) or picture)
    path = _write(root / "cifar10", "train")
    for kind in ("EPS", "BMP", "GIF", "TIFF"):
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4)).save(buffer, kind)
        _with_picture(path, 5, buffer.getvalue())
        with pytest.raises(images.DataDamaged, match=r"train\.parquet, image 5: .* no PNG or JPEG"):
            images.load("cifar10")
    assert not started


def test_labels_out_of_range_are_refused(root: Path) -> None:
    _write(root / "cifar10", "train", labels=np.arange(200) % 11)
    with pytest.raises(
        images.DataDamaged, match=r"train\.parquet: labels run from 0 to 10, expected 0 to 9.*fetch the right one"
    ):
        images.load("cifar10")


def test_one_broken_picture_is_enough(root: Path) -> None:
    path = _write(root / "cifar10", "train")
    table = parquet.read_table(path)
    structs: list[dict[str, Any]] = table["img"].to_pylist()
    structs[7]["bytes"] = b"not a picture"
    parquet.write_table(pyarrow.table({"img": structs, "label": table["label"]}), path)
    with pytest.raises(images.DataDamaged, match=r"train\.parquet, image 7: the picture cannot be decoded"):
        images.load("cifar10")
    structs[7]["bytes"] = None
    parquet.write_table(pyarrow.table({"img": structs, "label": table["label"]}), path)
    with pytest.raises(images.DataDamaged, match=r"train\.parquet, image 7: the picture cannot be decoded"):
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
    monkeypatch.setattr(images, "read", None)  # whoever decodes now fails
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


def _text(value: bytes) -> bytes:
    """Spell a string as Python 2's pickle module did."""
    return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value


def _batch(pixels: np.ndarray, labels: np.ndarray, entry: bytes, columns_first: bool) -> bytes:
    """Pickle a batch (N, C·H·W) as Python 2 did with protocol 2, which is how CIFAR is kept."""
    rows = b"".join(b"K" + bytes([int(label)]) for label in labels)
    raw = pixels.tobytes("F" if columns_first else "C")
    shape = b"M" + struct.pack("<H", len(pixels)) + b"K" + bytes([pixels.shape[1]]) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x88" if columns_first else b"\x89") + _text(raw) + b"tb"
    )  # fmt: skip
    names = b"](" + b"".join(_text(b"some picture.png") for _ in labels) + b"e"
    return (
        b"\x80\x02}q\x01(" + _text(b"batch_label") + _text(b"training batch 1 of 5") + _text(entry) + b"]q\x02(" + rows
        + b"e" + _text(b"data") + array + _text(b"filenames") + names + b"u."
    )  # fmt: skip


@pytest.mark.parametrize("columns_first", [False, True])
@pytest.mark.parametrize(
    ("name", "entry", "meta", "key"),
    [("cifar10", b"labels", "batches.meta", b"label_names"), ("cifar100", b"fine_labels", "meta", b"fine_label_names")],
)
def test_torchvisions_cifar_is_read_without_loading_it(
    root: Path, name: str, entry: bytes, meta: str, key: bytes, columns_first: bool
) -> None:
    known = KNOWN[name]
    files = known.fetched["train"]
    rng = np.random.Generator(np.random.Philox(1))
    pixels = rng.integers(0, 256, (200, 48), dtype=np.uint8)
    labels = np.arange(200) % known.classes
    for file, part, theirs in zip(files, np.split(pixels, len(files)), np.split(labels, len(files)), strict=True):
        (root / name / file).parent.mkdir(parents=True, exist_ok=True)
        (root / name / file).write_bytes(_batch(part, theirs, entry, columns_first))
    told = pickle.loads((root / name / files[0]).read_bytes(), encoding="latin1")  # the spelling above is right
    np.testing.assert_array_equal(told["data"], pixels[: len(told["data"])])
    assert told[entry.decode()] == labels[: len(told["data"])].tolist()
    words = b"](" + b"".join(_text(f"class {i}".encode()) for i in range(known.classes)) + b"e"
    folder = (root / name / files[0]).parent
    (folder / meta).write_bytes(b"\x80\x02}(" + _text(key) + words + _text(b"num_vis") + b"K\x30u.")
    data = images.load(name)
    wanted = images._shuffled(
        images.ImageSet(
            known.title,
            torch.from_numpy(pixels.reshape(200, 3, 4, 4).transpose(0, 2, 3, 1).copy()),
            torch.from_numpy(labels),
            tuple(f"class {i}" for i in range(known.classes)),
        )
    )
    assert torch.equal(data.images, wanted.images)
    assert torch.equal(data.labels, wanted.labels)
    assert (data.title, data.classes) == (wanted.title, wanted.classes)
    (folder / meta).unlink()
    assert images.load(name).classes == tuple(str(i) for i in range(known.classes))
    (root / name / files[-1]).write_bytes(b"\x80\x02}(" + _text(b"data"))
    with pytest.raises(images.DataDamaged, match=rf"{Path(files[-1]).name} is not a batch of {known.title}"):
        images.load(name)
    if len(files) > 1:
        (root / name / files[-1]).unlink()
        with pytest.raises(images.DataDamaged, match=r"data_batch_5 is missing, though others"):
            images.load(name)


def test_torchvisions_mnist_is_read(root: Path) -> None:
    rng = np.random.Generator(np.random.Philox(1))
    pixels, labels = rng.integers(0, 256, (200, 4, 4), dtype=np.uint8), (np.arange(200) % 10).astype(np.uint8)
    folder = root / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 200, 4, 4) + pixels.tobytes())
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 200) + labels.tobytes())
    data = images.load("mnist")
    wanted = images._shuffled(
        images.ImageSet("MNIST", torch.from_numpy(pixels[..., None]), torch.from_numpy(labels), tuple("0123456789"))
    )
    assert torch.equal(data.images, wanted.images)
    assert torch.equal(data.labels, wanted.labels.long())
    assert data.classes == wanted.classes
    for broken in (b"", b"\x80\x04.", struct.pack(">4I", 0x803, 200, 4, 4) + pixels.tobytes()[:-1]):
        (folder / "train-images-idx3-ubyte").write_bytes(broken)
        with pytest.raises(images.DataDamaged, match=r"train-images-idx3-ubyte is not as torchvision leaves it"):
            images.load("mnist")


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


def test_another_content_of_the_same_names_and_sizes_is_projected_anew(root: Path) -> None:
    rng = np.random.Generator(np.random.Philox(1))
    folder = root / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for stem, count in (("train", 200), ("t10k", 100)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pixels = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 4, 4) + pixels.tobytes())
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())
    first = images.project("mnist", 3, 150, 80)
    assert images.project("mnist", 3, 150, 80).digest == first.digest
    file = folder / "train-images-idx3-ubyte"
    before, stat = file.read_bytes(), file.stat()
    file.write_bytes(before[:16] + before[:15:-1])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = images.project("mnist", 3, 150, 80)
    assert second.digest != first.digest
    assert not torch.equal(second.inputs, first.inputs)


def test_take_wants_what_is_there() -> None:
    digits = images.load("digits")
    assert torch.equal(digits.take(100, skip=50).labels, digits.labels[50:150])
    with pytest.raises(ValueError, match="cannot take 1000 after 1000"):
        digits.take(1000, skip=1000)


def test_pooling_is_the_mean_over_squares() -> None:
    digits = images.load("digits")
    small = images.pooled(digits)
    assert small.images.shape == (1797, 4, 4, 1)
    wanted = digits.images.double().view(1797, 4, 2, 4, 2, 1).mean((2, 4))
    assert torch.equal(small.images.double(), wanted)
    assert small.title == "digits, 4 × 4"
    assert torch.equal(small.labels, digits.labels)
    assert float(images.centred(small.images).square().mean()) == pytest.approx(1, rel=1e-6)
    with pytest.raises(ValueError, match="cannot be cut into squares of 3"):
        images.pooled(digits, 3)


def test_a_pair_keeps_the_order_of_its_images() -> None:
    digits = images.load("digits")
    threes = images.pair(digits, "3", "8")
    rows = [i for i, label in enumerate(digits.labels.tolist()) if label in (3, 8)]
    assert torch.equal(threes.images, digits.images[rows])
    assert torch.equal(threes.labels == 1, digits.labels[rows] == 8)
    assert threes.classes == ("3", "8")
    assert torch.equal(images.signs(threes.labels) > 0, digits.labels[rows] == 8)
    assert images.signs(threes.labels, torch.float64).square().tolist() == [1.0] * len(threes)
    assert len(threes.take(100)) == 100
    with pytest.raises(ValueError, match="two different classes out of 0, 1"):
        images.pair(digits, "3", "cat")
    with pytest.raises(ValueError, match="two different classes"):
        images.pair(digits, "3", "3")
    with pytest.raises(ValueError, match="labels 0 and 1"):
        images.signs(digits.labels)


def test_redrawn_labels_are_as_many_as_asked_and_nested() -> None:
    digits = images.load("digits")
    some, more = images.redrawn(digits, 0.2), images.redrawn(digits, 0.6)
    wrong = some.labels != digits.labels
    expected = 0.9 * round(0.2 * len(digits))
    assert abs(int(wrong.sum()) - expected) < 4 * (0.1 * expected) ** 0.5
    assert torch.equal(more.labels[wrong], some.labels[wrong])
    assert torch.equal(images.redrawn(digits, 0.2).labels, some.labels)
    assert not torch.equal(images.redrawn(digits, 0.2, seed=1).labels, some.labels)
    assert torch.equal(images.redrawn(digits, 0).labels, digits.labels)
    assert torch.equal(some.images, digits.images)
    assert some.title == "digits, 20% of the labels redrawn"
    shares = torch.bincount(images.redrawn(digits, 1).labels, minlength=10) / len(digits)
    assert float((shares - 0.1).abs().max()) < 4 * (0.09 / len(digits)) ** 0.5
    with pytest.raises(ValueError, match="between 0 and 1"):
        images.redrawn(digits, 20)


def test_test_images_take_mean_and_deviation_from_the_training_set() -> None:
    digits = images.load("digits")
    train, test = digits.take(1000), digits.take(500, skip=1000)
    flat = images.centred(test.images, torch.float64, like=train.images)
    pixels = train.images.flatten(1).double()
    spread = (pixels - pixels.mean(0)).std(correction=0)
    torch.testing.assert_close(flat, (test.images.flatten(1) - pixels.mean(0)) / spread, rtol=1e-12, atol=1e-12)
    planes = images.channels_first(test.images, torch.float64, like=train.images)
    wanted = (test.images[..., 0] - pixels.mean()) / pixels.std(correction=0)
    torch.testing.assert_close(planes[:, 0], wanted, rtol=1e-12, atol=1e-12)
    given = images.pooled(digits).images
    kept = given.clone()
    images.channels_first(given)  # one float channel: the same memory either way round
    assert torch.equal(given, kept)


def test_channels_first_scales_each_channel(root: Path) -> None:
    _write(root / "cifar10", "train")
    data = images.load("cifar10")
    planes = images.channels_first(data.images)
    assert planes.shape == (200, 3, 4, 4)
    assert planes.is_contiguous()
    torch.testing.assert_close(planes.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(planes.std((0, 2, 3), correction=0), torch.ones(3))
    order = planes[5, 1].flatten().argsort()
    assert torch.equal(data.images[5, ..., 1].flatten()[order], data.images[5, ..., 1].flatten().sort().values)
