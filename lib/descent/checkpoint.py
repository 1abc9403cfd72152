"""Checkpoints of a run: written atomically, read without unpickling, refused when they are of another run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

__all__ = ["Checkpoint", "fingerprint"]

_SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """Where and how often a run is saved: every `every` steps, to the file `path` (numpy's npz).

    A killed run started again with the same arguments goes on from the file and ends in the same numbers,
    bit for bit. `label` should name what the arguments do not show, such as the objective and the schedule.
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
