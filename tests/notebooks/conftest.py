"""Reference notebooks executed by nbval directly: numbers are compared as everywhere in the book."""

from descent import dispatch

dispatch.fix()

from descent.book.execute.numerics import pytest_configure  # noqa: E402, F401
