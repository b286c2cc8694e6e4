"""The record of a video: what made it, kept beside the file as JSON and inside the file's metadata."""

import json
import platform
from pathlib import Path
from typing import Annotated, Any, Literal, final

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lavie.atomic import replacing
from lavie.blocks.kernels import attention_in_use
from lavie.building import parts
from lavie.errors import VideoError
from lavie.registry import Registry
from lavie.spec import Spec, type_of
from lavie.version import lavie_version
from lavie.video import read_comment

MAX_BYTES = 4 * 2**20
"""Largest record that is read, in bytes."""


class _Part(BaseModel):
    """A part of a record; keys that later versions add are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, protected_namespaces=())


@final
class Recipe(_Part):
    """Everything that determines the pixels of a file: equal recipes give equal videos on the same machine."""

    prompt: str
    negative_prompt: str | None = None
    """None where the spec says what to keep away from."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    spec_hash: str
    """Of the spec, overrides included, as `lavie.spec_hash` computes it."""
    weights_sha256: str = ""
    """Of the weights file; empty for weights drawn at random."""
    given: str = ""
    """The sha256 of the frames that the video starts from; empty where it starts from text alone."""
    dtype: str = "float32"
    scale: Annotated[int, Field(ge=1)] = 1
    """Side of the square that each pixel was written as, in pixels of the file."""

    def differences(self, other: "Recipe") -> list[str]:
        """Name the fields in which two recipes differ."""
        return [name for name in type(self).model_fields if getattr(self, name) != getattr(other, name)]


@final
class Record(_Part):
    """What made a video, when told to another person: enough to make it again."""

    format: Literal["lavie-record-1"] = "lavie-record-1"
    recipe: Recipe
    spec_name: str = ""
    """The spec's name or file name."""
    spec: dict[str, Any]
    """The whole spec, overrides included."""
    environment: dict[str, str] = {}
    """Versions of lavie, torch and Python, the platform and the device."""
    sources: dict[str, str] = {}
    """Published files that the weights were converted from, and the sha256 of each; of a cascade, after the stage.
    Not kept inside the video: the same weights under other names give the same bytes."""
    components: dict[str, str] = {}
    """Components of other packages that the spec uses, as `kind name`, and each one's distribution and version."""
    seconds: dict[str, float] = {}
    """How long it took, in seconds; not kept inside the video, so that the same recipe gives the same bytes."""
    memory: tuple[str, ...] = ()
    """What was planned for want of memory, and what was given up when it ran out; not kept inside the video either."""


def environment(device: str) -> dict[str, str]:
    """Describe what runs: versions, platform, the device by name, and the attention kernel."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return {
        "lavie": lavie_version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device} ({name})",
        "attention": attention_in_use(),
    }


def foreign_components(spec: Spec, registry: Registry) -> dict[str, str]:
    """Return the components in a spec that other packages own, with distribution and version."""
    components = {part for _, part in parts(spec) if part.kind and "type" in type(part).model_fields}
    owners = {f"{part.kind} {type_of(type(part))}": registry.owner(part) for part in components}
    return {name: str(owner) for name, owner in sorted(owners.items()) if owner.distribution != "lavie"}


def sidecar_of(path: Path) -> Path:
    """Return where the record of a video file lies: its whole name with .json after it."""
    return path.with_name(f"{path.name}.json")


def comment_of(record: Record) -> str:
    """Return what is kept of a record inside the video: all but what differs from run to run, in ASCII."""
    return json.dumps(record.model_dump(mode="json", exclude={"seconds", "memory", "sources"}))


def write_sidecar(path: Path, record: Record) -> None:
    """Write the record of the video file `path` beside it, whole or not at all.

    Raises:
        VideoError: naming the path, if it cannot be written.
    """
    sidecar = sidecar_of(path)
    try:
        with replacing(sidecar) as temporary:
            temporary.write_text(json.dumps(record.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise VideoError(f"{sidecar}: cannot be written: {error.strerror or error}") from error


def read_record(path: Path) -> Record:
    """Read the record of a video file, from beside it or else from inside it, or a record file itself.

    Raises:
        VideoError: naming the path, if there is no record or it is damaged.
    """
    source = path if path.suffix.lower() == ".json" else sidecar_of(path)
    try:
        with source.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        source, text = path, read_comment(path).encode()
    except OSError as error:
        raise VideoError(f"{source}: cannot be read: {error.strerror or error}") from error
    if not text or len(text) > MAX_BYTES:
        raise VideoError(f"{source}: {f'larger than {MAX_BYTES:,} bytes' if text else 'holds no record of lavie'}")
    try:
        return Record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise VideoError(f"{source}: holds no record of lavie: {place}{': ' if place else ''}{first['msg']}") from None


__all__ = [
    "Recipe",
    "Record",
    "comment_of",
    "environment",
    "foreign_components",
    "read_record",
    "sidecar_of",
    "write_sidecar",
]
