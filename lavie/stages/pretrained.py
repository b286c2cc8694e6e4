"""From a folder of published files to weights of every stage: each network is found, converted once, and kept."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from lavie.errors import WeightsError
from lavie.registry import Registry
from lavie.specfile import load_spec
from lavie.stages.base import StageSpec
from lavie.stages.latent_diffusion import LatentDiffusionSpec
from lavie.weights.conversion import convert, write
from lavie.weights.files import FORMAT_VERSION, WEIGHTS_FILE, read_manifest, sweep
from lavie.weights.ledger import Ledger
from lavie.weights.published import Need, choose
from lavie.weights.shapes import shapes_of
from lavie.weights.source import PARTS, Part, is_safetensors, read_network
from lavie.weights.survey import Candidate, Survey, survey

CONVERTED = "lavie"
"""Folder beside the published files that keeps what was converted."""
PUBLISHED: Mapping[str, Mapping[Part, str]] = {
    "base": {
        "denoiser": "lavie_base.pt",
        "autoencoder": "stable-diffusion-v1-4/vae",
        "text_encoder": "stable-diffusion-v1-4/text_encoder",
    },
    "interpolation": {
        "denoiser": "lavie_interpolation.pt",
        "autoencoder": "stable-diffusion-v1-4/vae",
        "text_encoder": "stable-diffusion-v1-4/text_encoder",
    },
    "upscaling": {
        "denoiser": "lavie_vsr.pt",
        "autoencoder": "stable-diffusion-x4-upscaler/vae",
        "text_encoder": "stable-diffusion-x4-upscaler/text_encoder",
    },
}
"""Under which names the networks of shipped specs are published."""
_LARGE = 64 << 20
"""Bytes of a file that takes a moment to read through."""
_ELSEWHERE = "--converted names another folder for converted weights"

OnNote = Callable[[str], None]
"""Called with a line about what takes long."""


@dataclass(frozen=True)
class _Stage:
    """A stage whose networks have been found."""

    spec: LatentDiffusionSpec
    recorded: StageSpec
    """What its folder says it was made for."""
    networks: Mapping[Part, Candidate]
    sources: Mapping[str, str]
    """Files by their names in the folder, and the sha256 of each."""
    folder: Path
    """Where it is converted to."""

    @property
    def paths(self) -> list[Path]:
        """Return what is to be read."""
        return list(dict.fromkeys(each.holding.path for each in self.networks.values()))

    @property
    def size(self) -> int:
        """Bytes of its networks."""
        return sum(each.size for each in self.networks.values())


def pretrained_weights(
    spec: StageSpec,
    folder: Path,
    converted: Path | None = None,
    *,
    plain: StageSpec | None = None,
    registry: Registry,
    on_note: OnNote,
) -> dict[str, Path]:
    """Return a folder of weights for every stage, made of the published files in `folder`.

    Networks are recognised by names and shapes of their tensors. What was converted stays in `converted`, by default
    the folder `lavie` beside the files, under a name that changes with the files. `plain` is the spec before it was
    changed for one run.

    Raises:
        WeightsError: listing all that is missing or there twice; or if files are damaged, or there is no room.
    """
    converted = converted or folder / CONVERTED
    ledger = Ledger(converted)
    files = _Files(survey(folder, ledger, converted), ledger, on_note)
    chosen = choose(_needs(spec, registry), files.found, ledger)
    stages: dict[str, _Stage] = {}
    for name in spec.parts():
        networks = {need.part: each for need, each in chosen.items() if need.stage == name}
        stages[name] = files.stage(spec.parts()[name], (plain or spec).parts().get(name), networks, converted)
    ledger.save()
    missing = {stage.folder: stage for stage in stages.values() if not _is_whole(stage.folder)}
    if missing:
        _check_room(converted, list(missing.values()))
    for stage in missing.values():
        files.convert(stage)
        ledger.save()
    return {name: stage.folder for name, stage in stages.items()}


def _needs(spec: StageSpec, registry: Registry) -> list[Need]:
    """Return all networks of a spec, with the published name of those that shipped specs have as well."""
    shipped = {name: load_spec(name, registry, (), "stage") for name in PUBLISHED}
    needs = []
    for name, stage in spec.parts().items():
        if not isinstance(stage, LatentDiffusionSpec):
            raise WeightsError(f"{name or 'the stage'}: published files are for the type latent_diffusion alone")
        for part in PARTS:
            own = getattr(stage, part)
            twins = [each for each, other in shipped.items() if getattr(other, part) == own]
            needs.append(Need(name, part, stage, PUBLISHED[twins[0]][part] if twins else ""))
    return needs


def _shapes(spec: LatentDiffusionSpec) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    return {part: sorted(shapes_of(getattr(spec, part)).items()) for part in PARTS}


@dataclass(frozen=True)
class _Files:
    """Published files, and what is known of them."""

    found: Survey
    ledger: Ledger
    on_note: OnNote

    def stage(
        self, spec: StageSpec, plain: StageSpec | None, networks: Mapping[Part, Candidate], converted: Path
    ) -> _Stage:
        """Settle where a stage is converted to: the name tells the files' content and the networks' shapes."""
        assert isinstance(spec, LatentDiffusionSpec), "no networks are chosen for other stages"
        shapes = _shapes(spec)
        sources = self._sums(networks)
        content = {
            part: [each.holding.prefix, [sources[self.found.name(file)] for file in each.files], shapes[part]]
            for part, each in networks.items()
        }
        digest = hashlib.sha256(json.dumps([FORMAT_VERSION, content], sort_keys=True).encode()).hexdigest()
        is_plain = isinstance(plain, LatentDiffusionSpec) and _shapes(plain) == shapes
        recorded = plain if plain is not None and is_plain else spec
        name = f"{networks['denoiser'].holding.path.stem}-{digest[:12]}"
        return _Stage(spec, recorded, networks, sources, converted / name)

    def convert(self, stage: _Stage) -> None:
        """Write a stage's folder of weights.

        Raises:
            WeightsError: if a file is damaged or changes meanwhile, or the folder cannot be written.
        """
        names = ", ".join(map(self.found.name, stage.paths))
        self.on_note(f"converting {names} to {stage.folder}, once ({_gib(stage.size)})")
        try:
            with ExitStack() as stack:
                contents = {path: read_network(path, stack) for path in stage.paths}
                parts = {
                    part: next(
                        holding
                        for holding in contents[each.holding.path].holdings
                        if (holding.part, holding.prefix) == (part, each.holding.prefix)
                    )
                    for part, each in stage.networks.items()
                }
                networks = convert(parts, stage.spec)
                if self._sums(stage.networks) != stage.sources:
                    raise WeightsError(f"{names}: changed while being read; run the command again")
                write(networks, stage.recorded, stage.folder, sources=stage.sources, overwrite=stage.folder.exists())
        except (OSError, SafetensorError) as error:
            if not _is_whole(stage.folder):  # else another process was quicker
                raise WeightsError(f"{stage.folder} cannot be written: {error}. {_ELSEWHERE}") from None

    def _sums(self, networks: Mapping[Part, Candidate]) -> dict[str, str]:
        """Return the sha256 of all files of some networks."""
        sums = {}
        for file in dict.fromkeys(file for each in networks.values() for file in each.files):
            size = file.stat().st_size
            if size >= _LARGE and not self.ledger.knows(file):
                self.on_note(f"checking {self.found.name(file)} ({_gib(size)})")
            sums[self.found.name(file)] = self.ledger.sha256(file)
        return sums


def _is_whole(folder: Path) -> bool:
    """Tell whether a stage has been converted; its bytes are checked when they are loaded."""
    try:
        return (folder / WEIGHTS_FILE).stat().st_size == read_manifest(folder)["files"][WEIGHTS_FILE]["size"]
    except (WeightsError, OSError, KeyError, TypeError):
        return False


def _check_room(converted: Path, stages: list[_Stage]) -> None:
    """Refuse before anything large is read what would end in a full or a write-protected disk."""
    try:
        converted.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=converted).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsError(f"{converted} cannot be written: {reason}. {_ELSEWHERE}") from None
    sweep(converted)
    pickled = [
        sum(each.size for each in stage.networks.values() if not is_safetensors(each.files[0])) for stage in stages
    ]
    temporary = Path(tempfile.gettempdir())
    for folder, needed, remedy in (
        (converted, sum(stage.size for stage in stages), _ELSEWHERE),
        (temporary, max(pickled), "TMPDIR names another folder for temporary files"),
    ):
        if (free := shutil.disk_usage(folder).free) < needed:
            raise WeightsError(f"{folder} has {_gib(free)} free, {_gib(needed)} are needed. Make room, or {remedy}")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"


__all__ = ["CONVERTED", "PUBLISHED", "pretrained_weights"]
