"""Folders of tensors: safetensors files beside a manifest that says what they are and vouches for their bytes.

A folder appears whole or not at all: it is written under another name, forced to disk, and renamed. Nothing in it is
ever unpickled.
"""

import hashlib
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lavie.errors import WeightsError
from lavie.version import lavie_version

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS_FILE = "model.safetensors"
AVERAGE_FILE = "average.safetensors"
"""In a checkpoint of training: running averages of what is trained, better than the weights themselves."""
_PARTIAL = ".partial-"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def write_folder(
    folder: Path, files: Mapping[str, Mapping[str, Tensor]], manifest: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """Write tensor files and their manifest so that `folder` holds all of it or does not exist.

    With `overwrite` an old folder is deleted right before the new one takes its name.

    Raises:
        FileExistsError: if `folder` exists and `overwrite` is false.
    """
    if folder.exists() and not overwrite:
        raise FileExistsError(f"{folder} exists already")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_name(folder.parent)
    partial.mkdir()
    try:
        entries = {}
        for name, tensors in files.items():
            path = partial / name
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
            _sync(path)
            entries[name] = {
                "sha256": sha256(path),
                "size": path.stat().st_size,
                "tensors": {key: [*tensor.shape] for key, tensor in tensors.items()},
            }
        content = {"format_version": FORMAT_VERSION, **manifest, "versions": versions(), "files": entries}
        _write_synced(partial / MANIFEST, json.dumps(content, indent=1))
        for name in files:
            shutil.copymode(partial / MANIFEST, partial / name)  # safetensors makes files that nobody else can read
        _sync(partial)
        if folder.exists():
            discard(folder)
        os.rename(partial, folder)
        _sync(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def discard(folder: Path) -> None:
    """Delete a folder so that it is never seen half deleted under its name."""
    gone = _partial_name(folder.parent)
    os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def _partial_name(parent: Path) -> Path:
    return parent / f"{_PARTIAL}{os.getpid()}-{secrets.token_hex(4)}"


def sweep(parent: Path) -> None:
    """Delete what saves that were killed, by processes which are gone or by this one, left in a folder."""
    for path in parent.glob(f"{_PARTIAL}*"):
        pid = path.name.removeprefix(_PARTIAL).split("-")[0]
        if pid.isdigit() and (int(pid) == os.getpid() or not _is_running(int(pid))):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what the manifest of a folder says.

    Raises:
        WeightsError: if there is none, or not one that this version of lavie reads.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{folder} has no {MANIFEST}: it is no weights folder of lavie, or was cut short") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / MANIFEST} cannot be read: {error}") from None
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise WeightsError(f"{folder / MANIFEST} is no manifest of lavie")
    if content.get("format_version") != FORMAT_VERSION:
        found = content.get("format_version")
        raise WeightsError(f"{folder} has format version {found}; this lavie reads {FORMAT_VERSION}. Update lavie")
    return content


def check_bytes(folder: Path, names: Iterable[str] = ()) -> None:
    """Compare size and sha256 of files of a folder, all of them by default, with its manifest.

    Raises:
        WeightsError: naming the file that differs.
    """
    files = read_manifest(folder)["files"]
    for name in names or files:
        check_size(folder, name)
        if sha256(folder / name) != files[name].get("sha256"):
            raise WeightsError(
                f"{folder / name} does not have the sha256 of the manifest: it is damaged or was changed"
            )


def check_size(folder: Path, name: str) -> None:
    """Compare the size of a file of a folder with its manifest.

    Raises:
        WeightsError: if it differs, or the file is missing.
    """
    entry, path = read_manifest(folder)["files"].get(name), folder / name
    if entry is None or not path.is_file():
        raise WeightsError(f"{path} is missing{' from the manifest' if entry is None else ''}")
    size = path.stat().st_size
    if size != entry.get("size"):
        raise WeightsError(f"{path} has {size} bytes where the manifest says {entry.get('size')}: it is damaged")


def header(path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and dtype of each tensor of a safetensors file without reading any data.

    Raises:
        WeightsError: if it is no intact safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
            return {name: (tuple(each.get_shape()), _DTYPES[each.get_dtype()]) for name, each in slices.items()}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is no safetensors file that lavie reads: {error}") from None


def check_names(
    source: object, found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]], limit: int = 5
) -> None:
    """Refuse a source, such as a file, whose tensors are not exactly those wanted, by name and shape.

    Raises:
        WeightsError: listing the first few missing, unexpected and misshapen tensors.
    """
    faults = [f"{name}: missing" for name in wanted if name not in found]
    faults += [f"{name}: not part of the network" for name in found if name not in wanted]
    faults += [
        f"{name}: shape {[*found[name]]} where the network has {[*wanted[name]]}"
        for name in wanted
        if name in found and tuple(found[name]) != tuple(wanted[name])
    ]
    if faults:
        more = f"\n... and {len(faults) - limit} more" if len(faults) > limit else ""
        raise WeightsError(f"{source} does not fit the network:\n" + "\n".join(faults[:limit]) + more)


def prefixed(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the state of several modules under one set of names, each behind its module's name."""
    return {f"{prefix}.{name}": value for prefix, each in modules.items() for name, value in each.state_dict().items()}


@torch.no_grad()
def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Set the state of a module, keeping dtype and memory format of what it has; tensors on meta are replaced."""
    state = module.state_dict()
    replaced = {name: tensors[name].to(value.dtype) for name, value in state.items() if value.is_meta}
    for name, value in state.items():
        if not value.is_meta:
            value.copy_(tensors[name])
    if replaced:
        module.load_state_dict(replaced, assign=True, strict=False)


def sha256(path: Path) -> str:
    """Return the sha256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of what made a file."""
    return {"lavie": lavie_version(), "python": platform.python_version(), "torch": torch.__version__}


def write_text(path: Path, text: str) -> None:
    """Replace a small text file in one step."""
    partial = _partial_name(path.parent)
    _write_synced(partial, text)
    os.replace(partial, path)
    _sync(path.parent)


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_running(pid: int) -> bool:
    if os.name == "nt":
        return True  # there, signal 0 would be an interrupt
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
