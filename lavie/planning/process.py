"""Memory of this process: what it has, and how it gives back what it no longer needs."""

import ctypes
import os
import sys
from pathlib import Path

MMAP_THRESHOLD = 2**20
"""Bytes. Blocks of memory from this size on go back to the system once they are free."""
_M_MMAP_THRESHOLD = -3
_USUAL = 500 * 10**6
"""What the program itself takes where the system does not tell."""


def resident_bytes() -> int:
    """Return the memory that this process has in use, libraries included."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return _USUAL


def give_memory_back() -> bool:
    """Let freed tensors go back to the system at once, and tell whether that can be had here: it can with glibc.

    By default glibc keeps what is freed, up to 32 MiB a block, to use it again. What it keeps fits new tensors badly,
    so that a process grows half as large again as what is alive in it, and a stated limit could not be kept.
    """
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD))
    except (OSError, AttributeError):
        return False


def trim() -> None:
    """Give back what is free already."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            return


__all__ = ["give_memory_back", "resident_bytes", "trim"]
