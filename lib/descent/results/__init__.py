"""What a run leaves behind: digests, provenance, tables that verify themselves, and how two runs compare."""

from descent.results.code import code_pieces, imported_pieces, library_files, named_pieces, short_hash
from descent.results.compare import Comparison, Kind, Measured, compare
from descent.results.digests import canonical, content_hash, data_digest, digest, file_hash, library_digest
from descent.results.provenance import NIGHT, Provenance, joined, provenance
from descent.results.store import (
    MALFORMED,
    Table,
    load_table,
    output_folder,
    paper_table,
    project_root,
    read_json,
    save_table,
    verified_table,
    write_atomic,
    write_json,
)
from descent.results.texts import parse_yaml, read_text, read_yaml

__all__ = [
    "MALFORMED",
    "NIGHT",
    "Comparison",
    "Kind",
    "Measured",
    "Provenance",
    "Table",
    "canonical",
    "code_pieces",
    "compare",
    "content_hash",
    "data_digest",
    "digest",
    "file_hash",
    "imported_pieces",
    "joined",
    "library_digest",
    "library_files",
    "load_table",
    "named_pieces",
    "output_folder",
    "paper_table",
    "parse_yaml",
    "project_root",
    "provenance",
    "read_json",
    "read_text",
    "read_yaml",
    "save_table",
    "short_hash",
    "verified_table",
    "write_atomic",
    "write_json",
]
