"""Checkpoints of a run: whole or absent, vouched for by sha256, the newest found by name."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from lavie.errors import WeightsError
from lavie.weights.files import (
    AVERAGE_FILE,
    WEIGHTS_FILE,
    check_bytes,
    check_names,
    discard,
    fill,
    header,
    prefixed,
    read_manifest,
    sweep,
    write_folder,
    write_text,
)

OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass(frozen=True)
class Position:
    """How far a run has come."""

    phase: int
    """Index of the phase under way, or just done."""
    step: int
    """Steps of it that are done."""
    total: int
    """Steps done by a run that has gone through all phases so far."""
    complete: bool = False
    """The phase is done: its averaged weights have become the weights."""


class Checkpoints:
    """The checkpoints in one folder."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def newest(self) -> Path | None:
        """Return the newest checkpoint; whatever a kill left half written is not one."""
        found = self._all()
        return found[-1] if found else None

    def save(
        self,
        position: Position,
        modules: Mapping[str, nn.Module],
        record: Mapping[str, Any],
        average: Mapping[str, nn.Module] | None = None,
        optimizer: Mapping[str, Tensor] | None = None,
    ) -> Path:
        """Write a checkpoint, name it in the file `latest`, and delete those no longer wanted."""
        path = self.folder / f"step-{position.total:08d}{'-end' if position.complete else ''}"
        if path.exists():
            return path
        files: dict[str, dict[str, Tensor]] = {WEIGHTS_FILE: prefixed(modules)}
        if average is not None:
            files[AVERAGE_FILE] = prefixed(average)
        if optimizer is not None:
            files[OPTIMIZER_FILE] = dict(optimizer)
        write_folder(path, files, {"position": asdict(position), **record})
        write_text(self.folder / "latest", path.name + "\n")
        self._prune()
        return path

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if re.fullmatch(r"step-\d{8,}(-end)?", path.name))

    def _prune(self) -> None:
        sweep(self.folder)
        for path in [path for path in self._all() if not path.name.endswith("-end")][: -self.keep]:
            discard(path)


def position_of(path: Path) -> Position:
    """Return how far the run was when a checkpoint was saved."""
    return Position(**read_manifest(path)["position"])


def load_modules(path: Path, file: str, modules: Mapping[str, nn.Module]) -> None:
    """Load one file of a checkpoint into modules, after all checks.

    Raises:
        WeightsError: if the file is damaged or does not fit.
    """
    found = {name: shape for name, (shape, _) in header(path / file).items()}
    check_names(path / file, found, {name: tuple(value.shape) for name, value in prefixed(modules).items()})
    tensors = load_file(path / file)
    for prefix, module in modules.items():
        fill(module, {name: tensors[f"{prefix}.{name}"] for name in module.state_dict()})


def load_optimizer(path: Path) -> dict[str, Tensor]:
    """Return the optimizer's state in a checkpoint."""
    return load_file(path / OPTIMIZER_FILE)


def verify(path: Path) -> None:
    """Check every byte of a checkpoint.

    Raises:
        WeightsError: naming the damaged file and the way on.
    """
    try:
        check_bytes(path)
    except WeightsError as error:
        raise WeightsError(f"{error}\nDelete {path} to go on from the checkpoint before it") from None
