"""Opening files that a user names."""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import BinaryIO

_BESIDE_FILES = ("dev", "proc")
"""Folders whose pipes are open already: `/dev/stdin`, and what a shell gives for `<(command)`."""


def open_input(path: Path) -> BinaryIO:
    """Open a file to read its bytes; a named pipe, which might never say anything, is refused and not waited for.

    Raises:
        OSError, ValueError: it cannot be opened.
    """
    pipe = stat.S_ISFIFO(path.stat().st_mode)
    if pipe and path.absolute().parts[1] not in _BESIDE_FILES:
        raise OSError(errno.ESPIPE, "Is a named pipe")
    return path.open("rb")
