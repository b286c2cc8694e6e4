"""Files and folders that appear whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; it takes the place of `path` once the block ends well.

    However the block ends otherwise, an interrupt included, the temporary file is removed and `path` is untouched.
    The content reaches the disk before the name does, so that a crash leaves the old file or the new one.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path`; it takes the place of `path`, a folder or nothing, once the block ends well.

    What was at `path` is deleted right before or, if the block does not end well, left untouched.
    """
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        if path.is_dir():
            old = _temporary(path)
            os.rename(path, old)
            shutil.rmtree(old, ignore_errors=True)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}.part")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["replacing", "replacing_folder"]
