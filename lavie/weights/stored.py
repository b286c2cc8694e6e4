"""The weights of a model in its folder, tensor by tensor; what several models have in common is stored once."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lavie.errors import WeightsError
from lavie.spec import Spec, dump
from lavie.weights.files import (
    AVERAGE_FILE,
    MANIFEST,
    WEIGHTS_FILE,
    check_bytes,
    check_size,
    header,
    prefixed,
    read_manifest,
    write_folder,
)


def save_stage(
    modules: Mapping[str, nn.Module],
    spec: Spec,
    folder: Path,
    dtype: torch.dtype | None = None,
    *,
    components: Mapping[str, str] | None = None,
    shared: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> None:
    """Write the weights of a stage; with `dtype`, floating-point tensors are stored in it (float16 halves the size).

    `components` names the components of other packages in the spec, with the distribution and version of each.
    `shared` names, by module, folders beside this one that hold the same weights, which are not stored again.

    Raises:
        FileExistsError: if `folder` exists and `overwrite` is false.
        WeightsError: if a shared module differs.
    """
    tensors, shared = prefixed(modules), shared or {}
    if dtype is not None:
        tensors = {name: each.to(dtype) if each.is_floating_point() else each for name, each in tensors.items()}
    for module, name in shared.items():
        theirs = read_tensors(folder.parent / name)
        for tensor in [tensor for tensor in tensors if tensor.startswith(f"{module}.")]:
            if tensor not in theirs or not torch.equal(theirs[tensor], tensors.pop(tensor)):
                raise WeightsError(f"{folder.parent / name} has other weights for {module}: {tensor} differs")
    manifest: dict[str, Any] = {"spec": dump(spec), "components": dict(components or {}), "modules": [*modules]}
    if shared:
        manifest["shared"] = {
            module: {"folder": name, "sha256": _sha256(folder.parent / name)} for module, name in shared.items()
        }
    write_folder(folder, {WEIGHTS_FILE: tensors}, manifest, overwrite=overwrite)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return all tensors of a folder of weights; of a checkpoint of training, averaged ones where there are any.

    Raises:
        WeightsError: if the folder is damaged.
    """
    places = tensor_files(folder)
    check_files(places.values())
    read = {path: load_file(path) for path in dict.fromkeys(places.values())}
    return {name: read[path][name] for name, path in places.items()}


def tensor_files(folder: Path) -> dict[str, Path]:
    """Return which file each tensor of a folder of weights lies in; where there are averages, those count.

    Modules that the manifest calls shared lie in the folder of another model beside this one; of a link, beside the
    folder that it leads to.

    Raises:
        WeightsError: if a file is damaged, or what is shared has changed.
    """
    places = _own_files(folder)
    for module, other in _shared(folder).items():
        places |= {tensor: path for tensor, path in _own_files(other).items() if tensor.startswith(f"{module}.")}
    return places


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a folder of weights, without reading any data.

    Raises:
        WeightsError: if a file is damaged.
    """
    places = tensor_files(folder)
    headers = {path: header(path) for path in dict.fromkeys(places.values())}
    return {name: headers[path][name][0] for name, path in places.items()}


def check_files(paths: Iterable[Path]) -> None:
    """Compare size and sha256 of files with the manifests beside them.

    Raises:
        WeightsError: naming the file that differs.
    """
    for path in dict.fromkeys(paths):
        check_bytes(path.parent, [path.name])


def _own_files(folder: Path) -> dict[str, Path]:
    files = read_manifest(folder)["files"]
    names = [name for name in (WEIGHTS_FILE, AVERAGE_FILE) if name in files] or [WEIGHTS_FILE]
    for name in names:
        check_size(folder, name)
    return {tensor: folder / name for name in names for tensor in header(folder / name)}


def _shared(folder: Path) -> dict[str, Path]:
    """Return the folders that shared modules lie in, by module, after a look at what they hold today."""
    shared = read_manifest(folder).get("shared", {})
    found: dict[str, Path] = {}
    for module, entry in shared.items() if isinstance(shared, dict) else [("", None)]:
        match entry:
            case {"folder": str(name), "sha256": str(sha256)} if Path(name).name == name not in {"", ".", ".."}:
                found[module] = folder.resolve().parent / name
            case _:
                raise WeightsError(f"{folder / MANIFEST}: shared must name folders beside this one, by module")
        if _sha256(found[module]) != sha256:
            raise WeightsError(f"{folder} shares its {module} with {found[module]}, which has other weights now")
    return found


def _sha256(folder: Path) -> str | None:
    """Return what the manifest of a folder says of its weights; their bytes are compared with it when they are read."""
    sha256 = read_manifest(folder)["files"].get(WEIGHTS_FILE, {}).get("sha256")
    return None if sha256 is None else str(sha256)
