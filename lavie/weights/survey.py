"""Which networks lie in a folder of published files: seen from names and shapes of tensors, before any data is read."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from lavie.errors import WeightsError
from lavie.weights.files import MANIFEST
from lavie.weights.ledger import Ledger
from lavie.weights.source import STEMS, Holding, network_files, read_network

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""Of files that are looked at."""
MAX_DEPTH = 6
MAX_FILES = 500


@dataclass(frozen=True)
class Candidate:
    """A network in a folder of published files."""

    holding: Holding
    """Its tensors are on the meta device."""
    files: tuple[Path, ...]
    is_alone: bool
    """Whether its files hold no other network."""

    @property
    def is_half(self) -> bool:
        """Tell whether numbers are stored with less than 32 bits."""
        return any(each.is_floating_point() and each.itemsize < 4 for each in self.holding.tensors.values())

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(each.numel() * each.itemsize for each in self.holding.tensors.values())


@dataclass
class Survey:
    """What was found in a folder."""

    folder: Path
    candidates: list[Candidate] = field(default_factory=list)
    refused: dict[Path, str] = field(default_factory=dict)
    """Files that hold no network, and why."""
    own: list[Path] = field(default_factory=list)
    """Weights folders of lavie, which are no published files."""

    def name(self, path: Path) -> str:
        """Return a path as seen from the folder."""
        return path.relative_to(self.folder).as_posix()


def survey(folder: Path, ledger: Ledger, leave_out: Path) -> Survey:
    """Look at every file of tensors in a folder and the folders in it, but not in a folder `leave_out` among these.

    Raises:
        WeightsError: if there is no such folder, or far more in it than published files.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder; --pretrained names the one that holds the published files")
    found, seen = Survey(folder), set[Path]()
    for place, names in _folders(folder, leave_out):
        if MANIFEST in names:
            found.own.append(place)
            continue
        for path, files in _networks(place, names, found.refused).items():
            if files[0].resolve() not in seen:
                seen |= {each.resolve() for each in files}
                _look(path, files, ledger, found)
        if len(seen) > MAX_FILES:
            raise WeightsError(f"{folder} holds more than {MAX_FILES} files of tensors; name a folder inside it")
    return found


def _folders(folder: Path, leave_out: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield folders with the names of their files, in order; links are followed, hidden folders passed over."""
    visited = {leave_out.resolve()} - {folder.resolve()}
    for root, inside, names in os.walk(folder, followlinks=True):
        place = Path(root)
        is_known = place.resolve() in visited
        visited.add(place.resolve())
        if is_known or len(place.relative_to(folder).parts) >= MAX_DEPTH:
            inside.clear()
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        if not is_known:
            yield place, sorted(names)


def _networks(place: Path, names: list[str], refused: dict[Path, str]) -> Mapping[Path, tuple[Path, ...]]:
    """Return what to read in a folder, and the files that each comes to: the folder itself, or single files in it.

    Where a configuration or an index lies beside files of the usual names, these are one network in some variants.
    """
    networks: dict[Path, tuple[Path, ...]] = {}
    loose = [name for name in names if name.lower().endswith(SUFFIXES)]
    if "config.json" in names or any(name.endswith(".index.json") for name in names):
        try:
            if files := network_files(place):
                networks[place] = tuple(place / name for name in files)
                loose = [name for name in loose if not name.startswith(STEMS) and place / name not in networks[place]]
        except WeightsError as error:
            refused[place] = str(error)
    return networks | {place / name: (place / name,) for name in loose}


def _look(path: Path, files: tuple[Path, ...], ledger: Ledger, found: Survey) -> None:
    try:
        with ExitStack() as stack:
            holdings = read_network(path, stack, ledger.look_at).holdings
    except (WeightsError, OSError) as error:
        found.refused[path] = str(error)
        return
    found.candidates += [Candidate(each, files, is_alone=len(holdings) == 1) for each in holdings]
