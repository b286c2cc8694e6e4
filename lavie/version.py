"""The version of the installed package."""

import functools
import importlib.metadata


@functools.cache
def lavie_version() -> str:
    """Return the installed version of lavie, or `0+unknown` when it runs from a plain source tree."""
    try:
        return importlib.metadata.version("lavie")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"
