"""Loading weights into networks, strictly and one by one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import final

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lavie.weights.files import check_names, fill, prefixed
from lavie.weights.stored import check_files, tensor_files, tensor_shapes


def load_into(modules: Mapping[str, nn.Module], folder: Path, *, partly: bool = False) -> None:
    """Load weights into modules, strictly; modules on the meta device take the tensors over as they are.

    With `partly`, the folder may hold modules that are not asked for. Each value is cast to the dtype of the parameter
    it goes to. Of a checkpoint of training, the averaged weights are taken where there are any.

    Raises:
        WeightsError: if the folder is damaged or does not fit; nothing is loaded then.
    """
    check_folder(modules, folder, partly=partly)
    read_into(modules, folder)


def check_folder(modules: Mapping[str, nn.Module], folder: Path, *, partly: bool = False) -> None:
    """Compare names and shapes before any data is read, then size and sha256.

    Raises:
        WeightsError: if the folder is damaged or does not fit.
    """
    found = tensor_shapes(folder)
    if partly:
        found = {name: shape for name, shape in found.items() if name.split(".", 1)[0] in modules}
    check_names(folder, found, {name: tuple(value.shape) for name, value in prefixed(modules).items()})
    check_files(tensor_files(folder).values())


def read_into(modules: Mapping[str, nn.Module], folder: Path) -> None:
    """Load weights from a folder that has been checked; besides the modules, one value at a time is in memory."""
    places = tensor_files(folder)
    for prefix, module in modules.items():
        fill(module, _OneByOne(places, f"{prefix}."))


def holds_the_same(folder: Path, other: Path, module: str) -> bool:
    """Tell whether two folders have equal weights for a module."""
    if folder.resolve() == other.resolve():
        return True
    mine, theirs = (_OneByOne(tensor_files(each), f"{module}.") for each in (folder, other))
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@final
class _OneByOne(Mapping[str, Tensor]):
    """The tensors under a prefix, each read when it is asked for: what was read of an open file stays in memory."""

    def __init__(self, places: Mapping[str, Path], prefix: str) -> None:
        self._prefix = prefix
        self._path = {name.removeprefix(prefix): path for name, path in places.items() if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._path[name], framework="pt") as file:
            return file.get_tensor(self._prefix + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._path)

    def __len__(self) -> int:
        return len(self._path)
