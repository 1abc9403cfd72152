"""Checkpoints of a run: written atomically, read without unpickling, refused when they are of another run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Checkpoint", "Keeping", "Timed", "fingerprint", "keeping", "kept"]

_SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often a run is saved: every `every` steps, to the file `path` (numpy's npz).

    A killed run started again with the same arguments goes on from the file and on the same machine ends in the same
    numbers, bit for bit. With other arguments it is refused; of objective, schedule and probes that is what
    `fingerprint` can tell. `label` must name the rest: the version of the code, for what a function or a method
    computes is not seen, and what lies deeper in objects that are not frozen dataclasses.
    """

    path: str | Path
    every: int
    label: str = ""  # names what the file cannot tell: the version of the code

    def save(self, mark: str, meta: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
        """Replace the file in one move: temporary name, sync, rename, sync of the folder."""
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = json.dumps({"schema": _SCHEMA, "mark": mark, "tensors": sorted(tensors), **meta}, sort_keys=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
        with temporary.open("wb") as file:
            arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
            np.savez(file, allow_pickle=False, **{"": np.frombuffer(header.encode(), np.uint8), **arrays})
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def load(self, mark: str, device: torch.device) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return header and tensors, or None when there is no file yet.

        Raises ValueError when the file is damaged or was written by a run with other arguments.
        """
        try:
            return self._read(mark, device)
        except _UselessError as fault:
            raise ValueError(
                f"checkpoint {self.path} {fault}; delete it to start over, or give this run a path of its own"
            ) from fault

    def _read(self, mark: str, device: torch.device) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        if not Path(self.path).exists():
            return None
        try:
            with Path(self.path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays.pop("").tobytes())
            known = header["schema"] == _SCHEMA and header["mark"] == mark
            if known and header["tensors"] != sorted(arrays):
                raise ValueError("some of its tensors are missing")  # a damaged list of contents is read without a word
        except Exception as error:  # whatever zip, npy and JSON make of bytes that are not theirs
            raise _UselessError(f"cannot be read ({error})") from error
        if not known:
            raise _UselessError("was written by a run with other arguments or by other code")
        return header, {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


class _UselessError(ValueError):
    """Says what is the matter with a file, after its name."""


@dataclass
class Keeping:
    """What keeps a piece of work that calls `train` many times, without its knowing.

    The n-th call is saved as call-n.npz every so many seconds. A piece of work started again makes the same calls
    in the same order, so that each finds its own file: what was finished is not run again, what was cut short goes on.
    A file that is damaged, or of another `mark`, stops nothing: it is deleted, `say` is told, and the call starts over.
    folder: None keeps nothing; budget: bytes of working memory a call may take, None for its own; mark: what the work
    is made from beside the arguments of its calls, the code above all.
    """

    folder: Path | None
    seconds: float = 60.0
    budget: int | None = None
    calls: int = 0  # how many there were
    mark: str = ""
    say: Callable[[str], None] = print

    def next(self) -> Timed | None:
        """Return the checkpoint of the next call."""
        self.calls += 1
        if self.folder is None:
            return None
        path = self.folder / f"call-{self.calls:04}.npz"
        return Timed(path, 1, self.mark, seconds=self.seconds, discard=functools.partial(self._discard, path))

    def _discard(self, first: Path, why: str) -> None:
        """Delete a file of no use and those of later calls, which would go on from what it held."""
        for path in [path for path in first.parent.glob("call-*.npz") if path.name >= first.name]:
            path.unlink(missing_ok=True)
        self.say(f"checkpoint {first} {why}: it is deleted with those after it, and what they held is run again")


@dataclass(frozen=True)
class Timed(Checkpoint):
    """A checkpoint by the clock: saved every so many seconds, and at the end of a run longer than a second.

    discard: takes away a file of no use, told what is the matter with it; the run then starts over. Without it, such a
    file is refused as it is by any checkpoint.
    """

    seconds: float = 60.0
    discard: Callable[[str], None] | None = None

    def load(self, mark: str, device: torch.device) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return header and tensors, or None when there is no file, or none of use that could be discarded."""
        if self.discard is None:
            return super().load(mark, device)
        try:
            return self._read(mark, device)
        except _UselessError as fault:
            self.discard(str(fault))
            return None


_KEEPING: ContextVar[Keeping | None] = ContextVar("keeping", default=None)


@contextlib.contextmanager
def keeping(keep: Keeping) -> Iterator[Keeping]:
    """Keep every call of `train` inside.

    keep: where and how often calls are saved.
    """
    token = _KEEPING.set(keep)
    try:
        yield keep
    finally:
        _KEEPING.reset(token)


def kept() -> Keeping | None:
    """Return what keeps the calls made here, if anything does."""
    return _KEEPING.get()


def fingerprint(*parts: object, most: int = sys.maxsize) -> str:
    """Return a digest of what can be told of the parts, equal for equal parts in every process and on every machine.

    Told are numbers, texts, tensors and arrays (of larger ones `most` elements or fewer, spread evenly), collections,
    frozen dataclasses with their fields, functions by name, defaults and what they close over. Of other objects the
    type is told, and attributes that are numbers, texts, tensors or arrays, unless their names begin with "_". What a
    function or a method computes is not.

    parts: what the digest is of; most: how many elements of a larger tensor are told.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(_bytes(part, most))
    return digest.hexdigest()[:32]


def _bytes(part: object, most: int, around: tuple[int, ...] = ()) -> bytes:
    """Return kind and content of a part; around: what it is a part of, for it may hold itself."""
    if isinstance(part, Tensor) or (isinstance(part, np.ndarray) and part.dtype.kind in "biufc"):
        return _elements(part, most)
    if part is None or isinstance(part, _PLAIN):
        return f"{type(part).__name__}:{repr(part) if isinstance(part, str) else part};".encode()
    if id(part) in around:
        return b"itself;"
    held = (_bytes(each, most, (*around, id(part))) for each in _held(part))
    return b"".join([_name(part).encode(), b"(", *(sorted(held) if isinstance(part, _UNORDERED) else held), b")"])


_PLAIN = (bool, int, float, complex, str, Enum, np.generic, torch.dtype, torch.device)
_UNORDERED = (set, frozenset)


def _held(part: Any) -> Iterable[object]:
    """Return what a part consists of, as far as that stays what it is while it is used."""
    if isinstance(part, Mapping):
        return (each for item in part.items() for each in item)
    if isinstance(part, (list, tuple, *_UNORDERED)):
        return part
    if isinstance(part, functools.partial):
        return part.func, part.args, part.keywords
    if isinstance(part, types.MethodType):
        return part.__func__, part.__self__
    if isinstance(part, types.FunctionType):
        return part.__defaults__, part.__kwdefaults__, [_content(cell) for cell in part.__closure__ or ()]
    if not isinstance(part, type) and getattr(getattr(part, "__dataclass_params__", None), "frozen", False):
        return ((field.name, getattr(part, field.name, None)) for field in dataclasses.fields(part))
    if isinstance(part, (type, types.ModuleType)):
        return ()
    held = getattr(part, "__dict__", {}).items()
    return ((k, v) for k, v in held if not k.startswith("_") and isinstance(v, (*_PLAIN, Tensor, np.ndarray)))


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a name without a value yet
        return None


def _name(part: object) -> str:
    """Return the full name of a function or a class, or of the class of anything else."""
    named = part if hasattr(part, "__qualname__") else type(part)
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"


def _elements(array: Any, most: int) -> bytes:
    """Return type, shape and bytes of a tensor or an array, of a large one those of every so many rows and columns."""
    about = f"{array.dtype}{tuple(array.shape)}".encode()
    if isinstance(array, Tensor) and array.layout is not torch.strided:
        return about
    for dim in range(array.ndim):
        step = max(1, -(-math.prod(array.shape) // most))
        array = array[(slice(None),) * dim + (slice(None, None, step),)]
    if isinstance(array, Tensor):
        # a copy: one number out of many counts as contiguous with the stride that it had, and has no bytes to view then
        array = array.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy()
    return about + bytes(array.tobytes())
