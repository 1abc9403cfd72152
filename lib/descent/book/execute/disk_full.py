"""A full disk or an interrupt, told apart from a faulty book: then what was there before is worth keeping."""

from __future__ import annotations

import errno
import os

from descent.book.sources.project import Unfinished

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(fault: BaseException) -> bool:
    """Tell whether a failure, here or in a process whose words it quotes, was for want of room."""
    if isinstance(fault, OSError) and fault.errno in FULL:
        return True
    return any(os.strerror(code) in str(fault) for code in FULL)


def is_blameless(fault: BaseException) -> bool:
    """Tell whether a failure says nothing about the book: an interrupt, a kill from outside, a want of room."""
    return not isinstance(fault, Exception) or isinstance(fault, Unfinished) or is_full(fault)
