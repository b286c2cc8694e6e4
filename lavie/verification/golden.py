"""Files of recorded numbers: what is in them, and which kind of network or table they are of."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lavie.errors import LavieError

Kind = Literal[
    "base",
    "interpolation",
    "upscaling",
    "image",
    "autoencoder",
    "text_encoder",
    "sampler",
    "losses",
    "tables",
]
_PREFIXES: dict[str, Kind] = {
    "base": "base",
    "interp": "interpolation",
    "vsr": "upscaling",
    "unet2d": "image",
    "vae": "autoencoder",
    "clip": "text_encoder",
    "sched": "sampler",
    "resp": "sampler",
    "train": "losses",
    "misc": "tables",
}
"""What file names begin with; asked only where the content does not tell."""


class GoldenError(LavieError):
    """A file that cannot be read, or lacks what its kind needs."""


@dataclass(frozen=True, eq=False)
class Golden:
    """The content of one file."""

    name: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.tensors:
            raise GoldenError(f"lacks {key!r}")
        return self.tensors[key]

    @property
    def weights(self) -> dict[str, Tensor]:
        """The state dict under official names; stored in half precision, used in float32."""
        found = self.below("weights.")
        return {key: value.float() if value.is_floating_point() else value for key, value in found.items()}

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose key begins with a prefix, by the rest of their key."""
        return {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}

    def settings(self, key: str, default: str | None = None) -> dict[str, Any]:
        """Return what one entry of the metadata says as JSON.

        Raises:
            GoldenError: if it is missing or holds anything else.
        """
        text = self.metadata.get(key, default)
        try:
            content = None if text is None else json.loads(text)
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise GoldenError(f"lacks the metadata {key!r} as a JSON object")
        return content

    @property
    def kind(self) -> Kind:
        """The kind, told by the content, or by the name where the content does not tell.

        Raises:
            GoldenError: if neither does.
        """
        prefix = self.name.partition("_")[0]
        kind = self._network() or self._numbers() or _PREFIXES.get(prefix)
        if kind is None:
            raise GoldenError(f"holds no kind of recorded numbers that lavie knows; known: {', '.join(_PREFIXES)}")
        return kind

    def _network(self) -> Kind | None:
        weights = [key for key in self.tensors if key.startswith("weights.")]
        if not weights:
            return None
        if "inputs.input_ids" in self.tensors:
            return "text_encoder"
        if "inputs.image" in self.tensors or "inputs.latent" in self.tensors:
            return "autoencoder"
        if "inputs.sample" not in self.tensors:
            return None
        if self.tensors["inputs.sample"].ndim == 4:
            return "image"
        if any("attn_temporal." in key for key in weights):
            return "upscaling"
        return "base" if any(key.endswith("rotary_emb.freqs") for key in weights) else "interpolation"

    def _numbers(self) -> Kind | None:
        if "x" in self.tensors and ("scheduler" in self.metadata or "respacing" in self.metadata):
            return "sampler"
        if any(key.endswith(".loss") for key in self.tensors):
            return "losses"
        return "tables" if any(key.startswith("rel_pos_bucket.") for key in self.tensors) else None


def read_golden(path: Path) -> Golden:
    """Read a file.

    Raises:
        GoldenError: if it cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise GoldenError(f"cannot be read: {error}") from None
    if empty := [key for key, tensor in tensors.items() if math.prod(tensor.shape) == 0]:
        raise GoldenError(f"holds no numbers under {empty[0]!r}")
    return Golden(path.stem, tensors, metadata)


def as_timesteps(timestep: Tensor, count: int) -> Tensor:
    """Return one timestep, or whatever else is counted per sample, for each of `count` samples."""
    flat = timestep.reshape(-1)
    return flat.expand(count) if len(flat) == 1 else flat
