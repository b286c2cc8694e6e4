"""Amounts of memory, as people write them."""

import re

from lavie.errors import Fault, SpecError

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 12GB, 1.5 GiB or 500MB; GB are powers of 1000, GiB of 1024.

    Raises:
        SpecError: if it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", text.strip())
    unit = UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise SpecError([Fault("max_memory", f"{text!r:.40} is no size; write one such as 12GB, 1.5GiB or 500MB")])
    return int(float(match[1]) * unit)


def format_size(num_bytes: int) -> str:
    """Write bytes in gigabytes, or megabytes if they are few."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


__all__ = ["format_size", "parse_size"]
