"""What a path holds: weights of lavie or published ones, in one file or a folder, by part and by how they are named."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lavie.errors import WeightsError
from lavie.weights import ldm
from lavie.weights.files import MANIFEST, check_bytes, header, read_manifest
from lavie.weights.layout import reason
from lavie.weights.pickled import names_in, unpickled
from lavie.weights.stored import read_tensors

Part = Literal["denoiser", "autoencoder", "text_encoder"]
PARTS: tuple[Part, ...] = ("denoiser", "autoencoder", "text_encoder")
"""The networks of a stage."""
CONSTANTS_FILE = "constants.safetensors"
"""Beside our weights: tensors of a published file that the network computes itself, kept for the way back."""
OWN = "lavie"
"""Layout of our own folders: the names of our modules."""
READABLE = "a folder of lavie, a folder of diffusers, a .safetensors file, or a file of torch.save (.pt, .ckpt, .bin)"
FOLDERS: dict[str, Part] = {"unet": "denoiser", "vae": "autoencoder", "text_encoder": "text_encoder"}
"""Names of the parts inside a folder of diffusers."""
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""How the weight files of one network begin."""
_WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""

_SIGNS: tuple[tuple[Part, str, str], ...] = (
    ("denoiser", "official", "time_embedding.linear_1.weight"),
    ("denoiser", "ldm", "time_embed.0.weight"),
    ("autoencoder", "diffusers_old", "encoder.mid_block.attentions.0.query.weight"),
    ("autoencoder", "diffusers", "encoder.down_blocks.0.resnets.0.conv1.weight"),
    ("autoencoder", "ldm", "encoder.down.0.block.0.conv1.weight"),
    ("text_encoder", "transformers", "text_model.embeddings.token_embedding.weight"),
    ("text_encoder", "transformers_bare", "embeddings.token_embedding.weight"),
    ("text_encoder", "openclip", "transformer.resblocks.0.ln_1.weight"),
)
"""A tensor that tells the part and the layout; the first that is there decides."""


@dataclass(frozen=True)
class Holding:
    """The tensors of one part in a source."""

    part: Part
    layout: str
    path: Path
    tensors: Mapping[str, Tensor]
    """Under the names of the layout; data stays on disk until it is used."""
    prefix: str = ""
    """What stood before those names in the file."""
    container: str = ""
    """Key of the dict in the file that they were under, such as `ema`."""
    config: Mapping[str, Any] | None = None
    """What `config.json` beside them says."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What a folder of lavie remembers of the file it was made from."""
    constants: dict[str, Tensor] = field(default_factory=dict)
    """Tensors such a folder keeps of that file."""


@dataclass(frozen=True)
class Contents:
    """All parts that a source holds, and what else there is."""

    path: Path
    holdings: tuple[Holding, ...]
    left_over: Mapping[str, str] = field(default_factory=dict)
    """Name to the reason why no part has a use for it."""


Reader = Callable[[Path, ExitStack], tuple[dict[str, Tensor], str, dict[str, str]]]
"""Returns the tensors of a file, the key they were under, and what else it holds."""


def read_source(path: Path, stack: ExitStack) -> Contents:
    """Recognise what a path holds, by its content; temporary files live until `stack` closes.

    Raises:
        WeightsError: if it is none of what is known, or holds tensors that belong to no part.
    """
    if path.is_dir():
        return _read_folder(path, stack)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist")
    return read_network(path, stack)


def read_network(path: Path, stack: ExitStack, read: Reader | None = None) -> Contents:
    """Recognise a file, or a folder with the files of one network, in pieces or whole; `read` reads the files.

    Raises:
        WeightsError: if it is none of what is known, or holds tensors that belong to no part.
    """
    read = read or _read_file
    return _read_one(path, stack, read) if path.is_dir() else _by_part(path, *read(path, stack))


def _read_folder(folder: Path, stack: ExitStack) -> Contents:
    if (folder / MANIFEST).is_file():
        return _read_own(folder)
    if names := [name for name in FOLDERS if (folder / name).is_dir()]:
        inside = [_read_one(folder / name, stack, _read_file) for name in names]
        left_over = {f"{each.path.name}/{key}": why for each in inside for key, why in each.left_over.items()}
        return Contents(folder, tuple(holding for each in inside for holding in each.holdings), left_over)
    return _read_one(folder, stack, _read_file)


def _read_own(folder: Path) -> Contents:
    manifest = read_manifest(folder)
    origins = manifest.get("origin")
    tensors = read_tensors(folder)
    constants = {}
    if CONSTANTS_FILE in manifest["files"]:
        check_bytes(folder, [CONSTANTS_FILE])
        constants = _load(folder / CONSTANTS_FILE)
    holdings = []
    for part in PARTS:
        own, kept = (_under(f"{part}.", every) for every in (tensors, constants))
        if own:
            origin = origins.get(part, {}) if isinstance(origins, dict) else {}
            holdings.append(Holding(part, OWN, folder, own, prefix=f"{part}.", origin=origin, constants=kept))
    strange = [key for key in tensors if key.partition(".")[0] not in PARTS]
    if strange:
        raise WeightsError(f"{folder} holds {strange[0]}, which is no part of {', '.join(PARTS)}")
    return Contents(folder, tuple(holdings))


def _read_one(folder: Path, stack: ExitStack, read: Reader) -> Contents:
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else None
    names = network_files(folder)
    if not names:
        raise WeightsError(f"{folder} holds no weights that lavie reads. Readable: {READABLE}")
    tensors: dict[str, Tensor] = {}
    for name in names:
        piece, _, _ = read(folder / name, stack)
        if twice := tensors.keys() & piece.keys():
            raise WeightsError(f"{folder}: {min(twice)} is in two files")
        tensors |= piece
    contents = _by_part(folder, tensors, "", {})
    whole = tuple(Holding(**{**vars(each), "config": config}) for each in contents.holdings)
    return Contents(folder, whole, contents.left_over)


def network_files(folder: Path) -> list[str]:
    """Choose the files to read: safetensors before pickles, full precision before half, pieces by their index.

    Raises:
        WeightsError: if an index names files that are not there.
    """
    for suffix in ("safetensors", "bin"):
        for stem in STEMS:
            index = folder / f"{stem}.{suffix}.index.json"
            if index.is_file():
                return _pieces(index)
            for name in (f"{stem}.{suffix}", f"{stem}.fp16.{suffix}"):
                if (folder / name).is_file():
                    return [name]
    return []


def _pieces(index: Path) -> list[str]:
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError(f"{index} is no index of weights in pieces")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise WeightsError(f"{index} names {name!r:.200}, which is no file beside it")
    return names


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no JSON object")
    return content


def _read_file(path: Path, stack: ExitStack) -> tuple[dict[str, Tensor], str, dict[str, str]]:
    """Return the tensors of a file, the key they were under, and what else it holds; the suffix does not matter."""
    if is_safetensors(path):
        return _load(path), "", {}
    pickled = stack.enter_context(unpickled(path))
    return _load(pickled.file), pickled.container, _reasons(pickled.left_over)


def look_at_file(path: Path, stack: ExitStack) -> tuple[dict[str, Tensor], str, dict[str, str]]:
    """Return of a file what reading it returns, but its tensors on the meta device: no data is read."""
    if is_safetensors(path):
        return _checked(path, {name: _blank(shape, dtype) for name, (shape, dtype) in header(path).items()}), "", {}
    found = names_in(path)
    tensors = {str(name): _blank(shape, getattr(torch, dtype)) for name, (dtype, shape) in found["tensors"].items()}
    return _checked(path, tensors), str(found["container"]), _reasons(found["left_over"])


def is_safetensors(path: Path) -> bool:
    """Tell by its first bytes whether a file is safetensors.

    Raises:
        WeightsError: if it only stands for a file that has not been downloaded.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if start == b"version h":
        raise WeightsError(f"{path} is a pointer of Git LFS, not the file itself: run git lfs pull, or download it")
    return start[8:] == b"{"


def _blank(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device="meta")


def _reasons(left_over: Mapping[str, str]) -> dict[str, str]:
    return {key: f"no tensor ({kind})" for key, kind in left_over.items()}


def _load(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is no safetensors file that lavie reads: {error}") from None
    return _checked(path, tensors)


def _checked(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for key, tensor in tensors.items():
        if not key.isprintable():
            raise WeightsError(f"{path} has a tensor named {key!r:.200}")
        if tensor.is_complex():
            raise WeightsError(f"{path}: {key} holds {tensor.dtype} numbers")
    return tensors


def _by_part(path: Path, tensors: dict[str, Tensor], container: str, left_over: dict[str, str]) -> Contents:
    """Sort the tensors of a file by part, and recognise each part's layout."""
    wrapper = next((each for each in _WRAPPERS if all(key.startswith(each) for key in tensors)), "")
    bare = _under(wrapper, tensors)
    groups = {prefix: _under(prefix, bare) for prefix in ldm.PREFIXES}
    groups = {prefix: group for prefix, group in groups.items() if group}
    if not groups:
        groups, rest = {"": bare}, {}
    else:
        rest = {key: tensor for key, tensor in bare.items() if not key.startswith(tuple(groups))}
    unused = {key: why for key in rest if (why := reason(key, ldm.IDLE))}
    if unknown := [key for key in rest if key not in unused]:
        raise WeightsError(f"{path} holds {len(unknown)} tensors that belong to no part, such as {unknown[0]}")
    holdings = [_recognise(path, group, wrapper + prefix, container) for prefix, group in groups.items()]
    return Contents(path, tuple(holdings), left_over | unused)


def _recognise(path: Path, tensors: dict[str, Tensor], prefix: str, container: str) -> Holding:
    for part, layout, sign in _SIGNS:
        if sign in tensors:
            return Holding(part, layout, path, tensors, prefix=prefix, container=container)
    where = f" under {prefix!r}" if prefix else ""
    first = next(iter(tensors), "no tensor at all")
    raise WeightsError(f"{path} holds no network that lavie knows{where}; its first tensor is {first}")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
