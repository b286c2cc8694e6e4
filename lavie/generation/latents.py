"""Latents of a video under way, stage by stage on disk: a run that dies goes on behind the last finished stage."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import final

from safetensors import SafetensorError
from torch import Tensor

from lavie.errors import WeightsError
from lavie.generation.record import Recipe
from lavie.weights.files import WEIGHTS_FILE, discard, read_manifest, write_folder
from lavie.weights.stored import read_tensors

_NAME = "latent"


@final
class Latents:
    """The latents of one video: a folder for each stage, of safetensors and a manifest with checksums."""

    def __init__(
        self,
        recipe: Recipe,
        environment: Mapping[str, str],
        folder: Path,
        *,
        kept: Path | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        content = recipe.model_dump(mode="json", exclude={"scale"})  # how large pixels are written changes no latent
        self._identity = {"recipe": content, "environment": dict(environment)}
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / f".latents-{key}"
        self._places = [self.folder] if kept is None else [self.folder, kept]
        self._note = on_note

    def keep(self, stage: str, make: Callable[[], Tensor]) -> Tensor:
        """Return a stage's latents: those of an earlier run of the same recipe, or new ones, which are written.

        What is damaged, or comes from another machine or version, is made anew. So is all of it where the disk takes
        no more: the video is what matters.
        """
        for place in self._places:
            if (latent := self._read(place / stage)) is not None:
                self._say(f"goes on behind the stage {stage}, which an earlier run has finished")
                return latent
        latent = make()
        try:
            manifest = {**self._identity, "stage": stage}
            write_folder(self.folder / stage, {WEIGHTS_FILE: {_NAME: latent}}, manifest, overwrite=True)
        except (OSError, SafetensorError) as error:
            self._say(f"the latents of the stage {stage} are not kept: {error}")
        return latent

    def _read(self, folder: Path) -> Tensor | None:
        if not folder.exists():
            return None
        try:
            manifest = read_manifest(folder)
            if {name: manifest.get(name) for name in self._identity} != self._identity:
                self._say(f"{folder} was made in another way or on another machine; made anew")
                return None
            return read_tensors(folder)[_NAME]
        except (WeightsError, OSError, KeyError) as error:
            self._say(f"{error}; made anew")
            return None

    def remove(self) -> None:
        """Delete the folder, once the video is whole."""
        if self.folder.exists():
            with suppress(OSError):
                discard(self.folder)

    def move(self, folder: Path) -> None:
        """Give the folder a name to stay under, once the video is whole; what was there before goes."""
        if self.folder.exists():
            if folder.exists():
                discard(folder)
            self.folder.rename(folder)

    def _say(self, text: str) -> None:
        if self._note is not None:
            self._note(f"note: {text}")


__all__ = ["Latents"]
