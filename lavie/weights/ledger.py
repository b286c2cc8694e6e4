"""What is remembered of published files, so that large ones are looked through once and not at every run."""

import json
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavie.weights.files import sha256, write_text
from lavie.weights.source import look_at_file

LEDGER = "sources.json"


class Ledger:
    """Names, shapes and sha256 of files, kept in a folder; what it says of a file counts until the file changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = _read(folder / LEDGER)
        self._is_new = False

    def look_at(self, path: Path, stack: ExitStack) -> tuple[dict[str, Tensor], str, dict[str, str]]:
        """Return what `look_at_file` returns.

        Raises:
            WeightsError: if it is no file of tensors.
        """
        entry = self._entry(path)
        with suppress(KeyError, TypeError, ValueError, AttributeError, RuntimeError):
            tensors = {
                str(name): torch.empty(tuple(shape), dtype=getattr(torch, dtype), device="meta")
                for name, (dtype, shape) in entry["tensors"].items()
            }
            return tensors, str(entry["container"]), dict(entry["left_over"])
        tensors, container, left_over = look_at_file(path, stack)
        shapes = {name: [str(each.dtype).removeprefix("torch."), [*each.shape]] for name, each in tensors.items()}
        entry |= {"tensors": shapes, "container": container, "left_over": left_over}
        self._is_new = True
        return tensors, container, left_over

    def knows(self, path: Path) -> bool:
        """Tell whether the sha256 of a file need not be computed."""
        return isinstance(self._entry(path).get("sha256"), str)

    def sha256(self, path: Path) -> str:
        """Return the sha256 of a file."""
        entry = self._entry(path)
        if not isinstance(entry.get("sha256"), str):
            entry["sha256"] = sha256(path)
            self._is_new = True
        return str(entry["sha256"])

    def save(self) -> None:
        """Write down what is new, if the folder is there and takes it; it can all be found out again."""
        if self._is_new and self._folder.is_dir():
            with suppress(OSError):
                write_text(self._folder / LEDGER, json.dumps(self._files))
                self._is_new = False

    def _entry(self, path: Path) -> dict[str, Any]:
        """Return what is known of a file as it is now."""
        status, key = path.stat(), os.path.relpath(path.resolve(), self._folder.resolve())
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        entry = self._files.get(key)
        if not isinstance(entry, dict) or entry.get("stamp") != stamp:
            entry = self._files[key] = {"stamp": stamp}
        return entry


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        files = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(files, dict):
            return files
    return {}
