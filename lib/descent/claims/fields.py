"""Fields of a file in data/claims, checked one by one; every error names file, place, field and remedy."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

__all__ = ["Node"]


class Node:
    """A mapping of a file with the place it stands at, for error messages.

    where: file and place, for messages.
    """

    def __init__(self, where: str, content: object) -> None:
        if not isinstance(content, Mapping):
            raise ValueError(f"{where}: expected fields with values, got {content!r}")
        self.where, self.content = where, content

    def fault(self, field: str, problem: str) -> ValueError:
        """Return the error that names file, place and field."""
        return ValueError(f"{self.where}: {field}: {problem}")

    def only(self, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Refuse a field that is missing or unknown."""
        required, optional = set(required), set(optional)
        for field in sorted(required - set(self.content)):
            raise self.fault(field, "is missing; add it")
        for field in sorted(set(map(str, self.content)) - required - optional):
            raise self.fault(field, f"is unknown; allowed are {', '.join(sorted(required | optional))}")

    def text(self, field: str, pattern: str = r"(?s).*\S.*", default: str | None = None) -> str:
        """Return a text of the form of `pattern`, its white space made single."""
        value = self.content.get(field, default)
        if default is not None and value == default:
            return default
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            number = isinstance(value, (int, float))
            remedy = "put it in quotes" if number else f"write a text of the form {pattern}"
            raise self.fault(field, f"{value!r} will not do; {remedy}")
        return " ".join(value.split())

    def choice(self, field: str, allowed: tuple[str, ...]) -> str:
        """Return one of the words allowed."""
        value = self.content.get(field)
        if value not in allowed:
            raise self.fault(field, f"{value!r} will not do; choose one of {', '.join(allowed)}")
        return str(value)

    def flag(self, field: str) -> bool:
        """Return whether something is so; where nothing is said, it is not."""
        value = self.content.get(field, False)
        if not isinstance(value, bool):
            raise self.fault(field, f"{value!r} will not do; write true, or leave it out")
        return value

    def texts(
        self, field: str, default: tuple[str, ...] | None = None, allowed: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        """Return a list of texts, of those allowed if these are named."""
        value = self.content.get(field, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise self.fault(field, f"{value!r} will not do; write a list of texts, such as [a, b]")
        if allowed is not None and field in self.content and (not value or not set(value) <= set(allowed)):
            raise self.fault(field, f"{value!r} will not do; choose from {', '.join(allowed)}")
        return tuple(value)

    def nodes(self, field: str, name: str) -> list[Node]:
        """Return the entries of a list, each under its own `name`."""
        value = self.content[field]
        if not isinstance(value, list) or not value:
            raise self.fault(field, "must be a list with at least one entry")
        labels = [item.get(name) if isinstance(item, Mapping) else None for item in value]
        for label, count in Counter(map(str, labels)).items():
            if count > 1:
                raise self.fault(field, f"{name} {label!r} occurs {count} times; keep one or rename")
        return [
            Node(f"{self.where}: {label or f'{field}[{i}]'}", item)
            for i, (label, item) in enumerate(zip(labels, value, strict=True))
        ]
