"""From names and options to a model: every choice is checked here, before anything is built."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lavie.building import build
from lavie.errors import Fault, SpecError, WeightsError
from lavie.generation.memory import check_memory
from lavie.generation.model import DTYPES, Model
from lavie.registry import Registry, installed
from lavie.specfile import change_spec, load_spec
from lavie.stages import StageSpec
from lavie.stages.loading import shipped_weights, weights_in
from lavie.stages.pretrained import OnNote, pretrained_weights
from lavie.weights.files import read_manifest

DEFAULT_SPEC = "base-tiny"
"""What runs where nothing is said: a model that ships with lavie."""
DEFAULT_SPEC_WITH_FRAMES = "first-frame-tiny"
"""What runs where nothing is said but frames are given."""
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Pretrained:
    """Published files to take the networks from."""

    folder: Path
    converted: Path | None = None
    """Where what is made of them is kept; None is a folder beside them."""
    on_note: OnNote = logging.getLogger(__name__).info
    """Told what takes long."""


def choose_model(
    spec: str | Path | StageSpec | None = None,
    *,
    overrides: Sequence[str] = (),
    weights: str | Path | None = None,
    pretrained: Pretrained | None = None,
    has_frames: bool = False,
    device: str = "auto",
    dtype: str = "float32",
    registry: Registry | None = None,
) -> Model:
    """Settle what is to run, and refuse what cannot, before anything is built.

    Without `spec` it is the one that the weights were made with, and without either it is `base-tiny`, or
    `first-frame-tiny` if `has_frames` says that frames are given. What has to be converted of `pretrained` is converted
    here.

    Raises:
        SpecError: with the path of whatever is wrong in the spec, or naming `device` or `dtype`.
        WeightsError: if there are no weights, or several that could be meant.
    """
    registry = registry or installed()
    if pretrained is not None and weights is not None:
        raise WeightsError("weights and pretrained both say where the networks come from: give one of them")
    if pretrained is not None and spec is None:
        raise WeightsError(f"name the spec that the files in {pretrained.folder} are for, as in --spec cascade")
    if spec is None and weights is None:
        spec = DEFAULT_SPEC_WITH_FRAMES if has_frames else DEFAULT_SPEC
    if dtype not in DTYPES:
        raise SpecError([Fault("dtype", f"unknown dtype {dtype!r}. Known: {', '.join(DTYPES)}")])
    loaded = choose_spec(spec, overrides=overrides, weights=weights, registry=registry)
    with torch.device("meta"):
        build(loaded, registry)
    check_memory(loaded)
    name, device = _name(spec, weights), find_device(device)
    if pretrained is not None:
        plain = choose_spec(spec, registry=registry)
        folders = pretrained_weights(
            loaded, pretrained.folder, pretrained.converted, plain=plain, registry=registry, on_note=pretrained.on_note
        )
    else:
        folders = shipped_weights(loaded, name) if weights is None else weights_in(Path(weights), loaded)
    if missing := [part for part in loaded.parts() if part not in folders]:
        which = " for its " + ", ".join(missing) if any(missing) else ""
        raise WeightsError(f"the spec {name!r} comes without weights{which}; name a folder of them with --weights")
    return Model(loaded, name, folders, device, dtype, registry)


def choose_spec(
    spec: str | Path | StageSpec | None,
    *,
    overrides: Sequence[str] = (),
    weights: str | Path | None = None,
    registry: Registry | None = None,
) -> StageSpec:
    """Return the spec of what is to run, with overrides applied; see `choose_model`.

    Raises:
        SpecError: with the path of whatever is wrong in it.
    """
    registry = registry or installed()
    if spec is None and weights is not None:
        folder = Path(weights)
        folder = folder.parent if folder.is_file() else folder
        recorded = read_manifest(folder).get("spec")
        spec = registry.load(StageSpec, recorded, str(folder))  # type: ignore[type-abstract]
    if isinstance(spec, StageSpec):
        loaded = change_spec(spec, overrides, registry) if overrides else spec
    else:
        loaded = load_spec(spec or DEFAULT_SPEC, registry, overrides, "stage")
    assert isinstance(loaded, StageSpec), "the registry was asked for a stage"
    return loaded


def _name(spec: str | Path | StageSpec | None, weights: str | Path | None) -> str:
    """Return what a model is called in records and messages."""
    if isinstance(spec, StageSpec) or (spec is None and weights is not None):
        folder = Path(weights or "")
        return folder.parent.name if folder.is_file() else folder.name
    return Path(spec or DEFAULT_SPEC).stem


def find_device(name: str) -> str:
    """Work out `auto`, and refuse devices that are not here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpecError([Fault("device", f"unknown device {name!r}. Known: auto, cpu, cuda")]) from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        found = f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices here"
        raise SpecError([Fault("device", f"{name} is not available: {found}. Use cpu")])
    if device.type not in {"cpu", "cuda"}:
        raise SpecError([Fault("device", f"{name} is not supported. Known: auto, cpu, cuda")])
    return name


def check_seed(seed: object) -> int:
    """Return a seed, or refuse it.

    Raises:
        SpecError: if it is not in [0, 2^63).
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise SpecError([Fault("seed", f"must be a whole number in [0, 2^63), got {seed!r:.80}")])
    return seed


__all__ = ["DEFAULT_SPEC", "Pretrained", "check_seed", "choose_model", "choose_spec", "find_device"]
