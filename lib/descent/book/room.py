"""A full disk, told apart from a faulty book: then the previous site is worth keeping."""

from __future__ import annotations

import errno
import os

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_full(fault: BaseException) -> bool:
    """Tell whether a failure, here or in a process whose words it quotes, was for want of room."""
    if isinstance(fault, OSError) and fault.errno in FULL:
        return True
    return any(os.strerror(code) in str(fault) for code in FULL)
