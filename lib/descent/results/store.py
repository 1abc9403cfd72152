"""Where results lie and how they are written: whole or not at all, and verified when read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from descent.results.provenance import Provenance

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "MALFORMED",
    "Table",
    "load_table",
    "output_folder",
    "paper_table",
    "project_root",
    "read_json",
    "save_table",
    "verified_table",
    "write_atomic",
    "write_json",
]

SCHEMA = 1
MALFORMED = (KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError)
"""What reading a file of the wrong shape raises, to be told as a ValueError with the file's name."""
NUMBERS = ("bool", "int64", "int32", "float64", "float32")
TEXT = "text"


def project_root() -> Path:
    """Return the project's folder: above the installed package, else around the working folder.

    Raises: FileNotFoundError saying where to run from.
    """
    for start in (Path(__file__).resolve(), Path.cwd()):
        for folder in (start, *start.parents):
            if (folder / "pyproject.toml").is_file() and (folder / "data" / "claims").is_dir():
                return folder
    raise FileNotFoundError(
        "no project folder (pyproject.toml beside data/claims) above the package or the "
        "working folder: install the checkout with `pip install -e .`, or run inside it"
    )


def output_folder(chapter: str) -> Path:
    """Return a chapter's folder, made if absent: $DESCENT_OUT, else runs/<chapter> in the project."""
    chosen = os.environ.get("DESCENT_OUT")
    folder = Path(chosen) if chosen else project_root() / "runs" / chapter
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically: sorted keys, floats that round-trip, no NaN."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that write_json wrote; raise ValueError naming it when it does not hold fields with values."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as fault:
        raise ValueError(f"{path.name} is damaged or not JSON ({fault}); write it again") from fault
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no fields with values; write it again")
    return content


@dataclass(frozen=True)
class Table:
    """A tidy table with the conditions it was made under."""

    name: str
    frame: DataFrame
    provenance: Provenance
    experiment: str
    config: str  # digest of the configuration
    registration: str = ""


def save_table(
    name: str,
    frame: DataFrame,
    provenance: Provenance,
    folder: Path,
    *,
    experiment: str = "",
    config: str = "",
    registration: str = "",
) -> Path:
    """Write <folder>/<name>.csv, and <name>.json with its hash and provenance; return the CSV's path.

    Every column holds numbers or complete texts; floats round-trip. `config`: digest of the configuration;
    `registration`: what its random numbers were drawn from beside the seed.
    Raises: ValueError for an index that carries content, and for columns of other types.
    """
    from pandas import RangeIndex

    if not isinstance(frame.index, RangeIndex):
        raise ValueError(f"table {name!r}: a tidy table has no index; call frame.reset_index() first")
    columns = [[str(column), _column_type(name, frame, column)] for column in frame.columns]
    content = frame.to_csv(index=False, na_rep="nan", lineterminator="\n").encode()
    path = folder / f"{name}.csv"
    write_atomic(path, content)
    write_json(path.with_suffix(".json"), {
        "schema": SCHEMA, "name": name, "rows": len(frame), "columns": columns, "experiment": experiment,
        "config": config, "sha256": hashlib.sha256(content).hexdigest(), "provenance": provenance.to_json(),
        **({"registration": registration} if registration else {}),
    })  # fmt: skip
    return path


def load_table(path: Path) -> Table:
    """Read a table that save_table wrote; nothing is ever unpickled.

    Raises: ValueError when the bytes are not those that were hashed, or the schema is another one.
    """
    about, content = verified_table(path)
    try:
        frame = _read_csv(content, dict(about["columns"]))
        made = Provenance.from_json(about["provenance"])
        return Table(about["name"], frame, made, about["experiment"], about["config"], about.get("registration", ""))
    except (ValueError, *MALFORMED) as fault:
        name = path.with_suffix(".json").name
        raise ValueError(f"{name}: incomplete or malformed ({fault!r}); run the experiment again") from fault


def verified_table(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the note beside a table and the table's bytes.

    Raises: ValueError when there is no note, the schema is another one, or the bytes are not those that were hashed.
    """
    note = path.with_suffix(".json")
    if not note.is_file():
        raise ValueError(
            f"{path.name} has no {note.name} beside it, which says what it is and how it was made: "
            "run the experiment again, or restore the file"
        )
    about, content = read_json(note), path.read_bytes()
    if about.get("schema") != SCHEMA:
        raise ValueError(f"{path.name}: schema {about.get('schema')!r}, this library reads {SCHEMA}")
    if hashlib.sha256(content).hexdigest() != about.get("sha256"):
        raise ValueError(
            f"{path.name} is not the file that was written (its hash differs): "
            "run the experiment again, or restore the file"
        )
    return about, content


def paper_table(chapter: str, name: str, scale: str = "gpu") -> DataFrame | None:
    """Return a table of record, data/published/<chapter>/<scale>/<name>.csv; None while there is none.

    scale: "gpu", measured at paper scale, or "night", by two cores.
    """
    path = project_root() / "data" / "published" / chapter / scale / f"{name}.csv"
    return load_table(path).frame if path.is_file() else None


def _read_csv(content: bytes, columns: Mapping[str, str]) -> DataFrame:
    from pandas import DataFrame, read_csv

    texts = read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, skip_blank_lines=False)
    return DataFrame({name: _converted(texts[name], kind) for name, kind in columns.items()})


def _converted(texts: Any, kind: str) -> Any:
    """Parse a column by NumPy, which rounds decimals correctly; the CSV reader's own parser need not."""
    if kind == TEXT:
        return texts
    return (texts == "True").to_numpy(bool) if kind == "bool" else np.array(texts.to_list(), "U").astype(kind)


def _column_type(name: str, frame: DataFrame, column: Any) -> str:
    values = frame[column]
    if str(values.dtype) in NUMBERS:
        return str(values.dtype)
    if all(isinstance(value, str) for value in values):
        return TEXT
    raise ValueError(
        f"table {name!r}: column {column!r} of type {values.dtype} holds neither numbers nor "
        "complete texts; convert it first"
    )


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system opens a folder; the rename itself has happened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
