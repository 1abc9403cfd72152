"""Short hashes of configurations, library source and data: equal content, equal hash, on any machine."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from descent.results.code import LENGTH, PACKAGES, code_pieces, short_hash

__all__ = ["canonical", "content_hash", "data_digest", "digest", "file_hash", "library_digest"]


def digest(config: object, ignore: Collection[str] = ()) -> str:
    """Return 16 hexadecimal digits that move exactly when the content of a configuration moves.

    `ignore` names fields left out at every depth, such as a seed that is recorded on its own.
    Raises: TypeError naming the field that has no canonical form.
    """
    return short_hash(canonical(config, ignore).encode())


def canonical(config: object, ignore: Collection[str] = ()) -> str:
    """Return a configuration as JSON with sorted keys, every value tagged with its type."""
    return json.dumps(_tagged(config, ignore, "configuration"), sort_keys=True, separators=(",", ":"))


def data_digest(data: Any) -> str:
    """Return a short hash of data: shape, type and bytes of an array, columns of a frame, bytes of a file.

    data: an array, a table, or the bytes or path of a file.
    """
    if isinstance(data, Path):
        return file_hash(data)[:LENGTH]
    if isinstance(data, bytes):
        return short_hash(data)
    if _of(data, "pandas", "DataFrame"):
        return digest({str(name): _array_digest(data[name].to_numpy()) for name in data.columns})
    if _of(data, "torch", "Tensor"):
        data = data.detach().cpu().numpy()
    return _array_digest(data)


def _of(value: Any, package: str, *names: str) -> bool:
    """Return whether a value is of a class of a package that takes seconds to load; one not loaded has no values."""
    loaded = sys.modules.get(package)
    return loaded is not None and isinstance(value, tuple(getattr(loaded, name) for name in names))


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, which is never in memory whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON fields but for their own entry "sha256", by which a file vouches for itself."""
    kept = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def library_digest(modules: Iterable[str], folder: Path = PACKAGES) -> str:
    """Return a short hash over the code of modules and of all they import under `folder`, see `code_pieces`."""
    return digest(code_pieces(modules, folder))


def _tagged(value: object, ignore: Collection[str], where: str) -> object:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Enum):
        return {"enum": [type(value).__name__, value.name]}
    if value is None or isinstance(value, (bool, int, str)):
        return {type(value).__name__: value}
    if isinstance(value, float):
        return {"float": repr(value)}
    if isinstance(value, (tuple, list)):
        return {"sequence": [_tagged(item, ignore, f"{where}[{i}]") for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        return {"mapping": _tagged_fields(value, ignore, where)}
    return _tagged_object(value, ignore, where)


def _tagged_object(value: Any, ignore: Collection[str], where: str) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        content = {item.name: getattr(value, item.name) for item in fields(value)}
        return {type(value).__name__: _tagged_fields(content, ignore, where)}
    if isinstance(value, np.ndarray) or _of(value, "torch", "Tensor"):
        return {"array": data_digest(value)}
    if _of(value, "torch", "dtype", "device"):
        return {"torch": str(value)}
    raise TypeError(
        f"{where} is a {type(value).__name__}, which has no canonical form: configure with "
        "numbers, texts, tuples, enums, arrays and dataclasses"
    )


def _tagged_fields(content: Mapping[Any, object], ignore: Collection[str], where: str) -> dict[str, object]:
    if not all(isinstance(name, str) for name in content):
        raise TypeError(f"{where} has keys that are not texts: write them as texts")
    kept = {name: value for name, value in content.items() if name not in ignore}
    return {name: _tagged(value, ignore, f"{where}.{name}") for name, value in kept.items()}


def _array_digest(array: np.ndarray[Any, Any]) -> str:
    if array.dtype.kind not in "biufc":
        return digest([str(item) for item in array.ravel().tolist()] + [str(array.shape)])
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return short_hash(f"{little.dtype.str}{little.shape}".encode() + little.tobytes())
