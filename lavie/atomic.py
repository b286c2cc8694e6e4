"""Files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; it takes the place of `path` once the block ends well.

    However the block ends otherwise, an interrupt included, the temporary file is removed and `path` is untouched.
    The content reaches the disk before the name does, so that a crash leaves the old file or the new one.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["replacing"]
