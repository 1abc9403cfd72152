"""Checkpoints of a run: written atomically, read without unpickling, refused when they are of another run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

__all__ = ["Checkpoint", "Keeping", "Timed", "fingerprint", "keeping", "kept"]

_SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often a run is saved: every `every` steps, to the file `path` (numpy's npz).

    A killed run started again with the same arguments on the same machine goes on from the file and ends in the same
    numbers, bit for bit. `label` should name what the arguments do not show, such as the objective and the schedule.
    """

    path: str | Path
    every: int
    label: str = ""

    def save(self, mark: str, meta: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
        """Replace the file in one move: temporary name, sync, rename, sync of the folder."""
        path = Path(self.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = json.dumps({"schema": _SCHEMA, "mark": mark, **meta}, sort_keys=True)
        temporary = path.with_name(path.name + ".partial")
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
        if not Path(self.path).exists():
            return None
        try:
            with Path(self.path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays.pop("").tobytes())
        except (BadZipFile, KeyError, EOFError, OSError, ValueError) as error:
            raise ValueError(f"checkpoint {self.path} cannot be read ({error}); delete it to start over") from error
        if header["schema"] != _SCHEMA or header["mark"] != mark:
            raise ValueError(
                f"checkpoint {self.path} was written by a run with other arguments; "
                "delete it to start over, or give this run a path of its own"
            )
        return header, {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


@dataclass
class Keeping:
    """What keeps a piece of work that calls `train` many times, without its knowing.

    The n-th call is saved as call-n.npz every so many seconds. A piece of work started again makes the same calls
    in the same order, so that each finds its own file: what was finished is not run again, what was cut short goes on.
    folder: None keeps nothing; budget: bytes of working memory a call may take, None for its own.
    """

    folder: Path | None
    seconds: float = 60.0
    budget: int | None = None
    calls: int = 0

    def next(self) -> Timed | None:
        """Return the checkpoint of the next call."""
        self.calls += 1
        if self.folder is None:
            return None
        return Timed(self.folder / f"call-{self.calls:04}.npz", 1, seconds=self.seconds)


@dataclass(frozen=True)
class Timed(Checkpoint):
    """A checkpoint by the clock: saved every so many seconds, and at the end of a run longer than a second."""

    seconds: float = 60.0


_KEEPING: ContextVar[Keeping | None] = ContextVar("keeping", default=None)


@contextlib.contextmanager
def keeping(keep: Keeping) -> Iterator[Keeping]:
    """Keep every call of `train` inside."""
    token = _KEEPING.set(keep)
    try:
        yield keep
    finally:
        _KEEPING.reset(token)


def kept() -> Keeping | None:
    """Return what keeps the calls made here, if anything does."""
    return _KEEPING.get()


def fingerprint(*parts: object) -> str:
    """Return a digest of numbers, strings, tensors and collections of them."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(_bytes(part))
    return digest.hexdigest()[:32]


def _bytes(part: object) -> bytes:
    if isinstance(part, Tensor):
        array = part.detach().cpu().contiguous().numpy()
        return f"{array.dtype}{array.shape}".encode() + array.tobytes()
    if isinstance(part, Mapping):
        return b"".join(_bytes(str(key)) + _bytes(value) for key, value in part.items())
    if isinstance(part, Iterable) and not isinstance(part, str):
        return b"".join(_bytes(value) for value in part)
    return f"{type(part).__name__}:{part};".encode()
