"""Short hashes of configurations, library source and data: equal content, equal hash, on any machine."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pandas import DataFrame

from descent.results.texts import read_text

__all__ = ["canonical", "data_digest", "digest", "file_hash", "library_digest", "library_files"]

LENGTH = 16
PACKAGES = Path(__file__).resolve().parents[2]


def digest(config: object, ignore: Collection[str] = ()) -> str:
    """Return 16 hexadecimal digits that move exactly when the content of a configuration moves.

    `ignore` names fields left out at every depth, such as a seed that is recorded on its own.
    Raises: TypeError naming the field that has no canonical form.
    """
    return _short(canonical(config, ignore).encode())


def canonical(config: object, ignore: Collection[str] = ()) -> str:
    """Return a configuration as JSON with sorted keys, every value tagged with its type."""
    return json.dumps(_tagged(config, ignore, "configuration"), sort_keys=True, separators=(",", ":"))


def data_digest(data: np.ndarray[Any, Any] | torch.Tensor | DataFrame | bytes | Path) -> str:
    """Return a short hash of data: shape, type and bytes of an array, columns of a frame, bytes of a file."""
    if isinstance(data, Path):
        return file_hash(data)[:LENGTH]
    if isinstance(data, bytes):
        return _short(data)
    if isinstance(data, DataFrame):
        return digest({str(name): _array_digest(data[name].to_numpy()) for name in data.columns})
    if isinstance(data, torch.Tensor):
        data = data.detach().cpu().numpy()
    return _array_digest(data)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, which is never in memory whole."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def library_digest(modules: Iterable[str], folder: Path = PACKAGES) -> str:
    """Return a short hash over the source of modules and of everything of their package they import.

    Imports are read from the source, wherever they stand in it; nothing is executed, and an import by a
    computed name is not seen. Raises: ValueError for a module without source under `folder`, or with one that is no
    Python.
    """
    files = library_files(modules, folder)
    return digest({name: file.read_text(encoding="utf-8") for name, file in files.items()})


def library_files(modules: Iterable[str], folder: Path = PACKAGES) -> dict[str, Path]:
    """Return the files of modules and of everything they import under `folder`, by sorted module name."""
    waiting = sorted(modules)
    missing = [name for name in waiting if _source(name, folder) is None]
    if missing or not waiting:
        raise ValueError(
            f"no source for {', '.join(missing) or 'an empty list'}: name importable modules "
            'such as "descent.experiments.saddles"'
        )
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        file = _source(name, folder)
        if file is not None and name not in found:
            found[name] = file
            waiting += [name.rpartition(".")[0], *_imports(name, file)]
    return dict(sorted(found.items()))


def _imports(name: str, file: Path) -> tuple[str, ...]:
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    return _imported(tuple(package), read_text(file), file.name)


@functools.lru_cache(maxsize=2048)
def _imported(package: tuple[str, ...], text: str, file: str) -> tuple[str, ...]:
    """Return what a source text in a package imports; a command that digests much parses every text once."""
    return tuple(_each_import(package, _parsed(text, file)))


def _parsed(text: str, file: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as fault:
        raise ValueError(f"{file}, line {fault.lineno} is not Python: {fault.msg}; correct it") from None


def _each_import(package: tuple[str, ...], tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _source(name: str, folder: Path) -> Path | None:
    stem = folder.joinpath(*name.split("."))
    candidates = (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
    return next((file for file in candidates if name and file.is_file()), None)


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


def _tagged_object(value: object, ignore: Collection[str], where: str) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        content = {item.name: getattr(value, item.name) for item in fields(value)}
        return {type(value).__name__: _tagged_fields(content, ignore, where)}
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return {"array": data_digest(value)}
    if isinstance(value, (torch.dtype, torch.device)):
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
    return _short(f"{little.dtype.str}{little.shape}".encode() + little.tobytes())


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:LENGTH]
