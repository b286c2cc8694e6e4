"""A dry run: the code that will make a video, without its numbers, to learn what it will need."""

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from lavie.blocks.device import standing_for
from lavie.errors import Fault, SpecError
from lavie.planning.kernels import Kernels
from lavie.planning.memo import Memo
from lavie.planning.meter import Meter, Usage
from lavie.spec import Spec, dump
from lavie.stages import CascadeSpec, Given, LatentDiffusion, PixelVideo, Request, StageSpec, VideoShape
from lavie.stages.lazy_video import at_once
from lavie.stages.loading import Weights, is_released, twin_networks
from lavie.stages.residence import Residence

PIXELS = "pixels"
"""Name of what follows after the last stage: decoding and writing."""


@dataclass(frozen=True)
class Setting:
    """What runs, and how: all that a plan may change."""

    spec: StageSpec
    device: torch.device
    dtype: torch.dtype
    in_turn: bool = False
    """Load networks when they go to work and release them afterwards."""
    overrides: tuple[str, ...] = ()
    """What has been changed of the spec since it was asked for, as path=value."""


@dataclass(frozen=True)
class Need:
    """What one stage, or the making of pixels at the end, needs."""

    name: str
    weights: int
    """Bytes of the networks that the stage brings along; those that an earlier one has as well count there."""
    usage: Usage


@final
class _Counted(Residence):
    """Counts networks as they come and go, by their names in the stage."""

    def __init__(self, meter: Meter, released: set[nn.Module]) -> None:
        self._meter = meter
        self._released = released

    @contextmanager
    def holding(self, network: nn.Module) -> Iterator[None]:
        """Count the weights within the context, and for a moment the largest of them as it is in the file."""
        size = weight_bytes(network) if network in self._released else 0
        self._meter.hold(size, spare=_largest(network) if size else 0)
        try:
            yield
        finally:
            self._meter.hold(-size)

    def release(self) -> bool:
        """Release nothing: a dry run does not run out of memory."""
        return False


def dry_run(
    setting: Setting,
    *,
    given: Given | None = None,
    weights: Weights | None = None,
    memo: Memo | None = None,
) -> list[Need]:
    """Make one video without its numbers, and return what each stage needs, and the pixels at the end.

    `given` is what goes in, its pixels do not matter; without it, a video of which the stage makes its own size.
    Networks of several stages count once if they are equal in `weights`; without weights, if their specs are.

    Raises:
        SpecError: if code depends on numbers, so that nothing can be said without them.
    """
    try:
        return _Rehearsal(setting, weights, memo or Memo()).run(given)
    except NotImplementedError as error:
        raise SpecError([Fault("", f"cannot be planned: some part of it depends on numbers ({error})")]) from error


@final
class _Rehearsal:
    """A stage without numbers, and what is noted of it."""

    def __init__(self, setting: Setting, weights: Weights | None, memo: Memo) -> None:
        self.setting, self.memo = setting, memo
        self.meter = Meter(Kernels(setting.device))
        self.spec = _at_hand(setting.spec)
        with torch.device("meta"):
            self.stage = self.spec.build()
        self.stage.to(setting.dtype).eval()
        self.sizes: dict[str, int] = {}
        """Bytes of the weights that each part brings along."""
        self._settle(twin_networks(setting.spec, weights))

    def run(self, given: Given | None) -> list[Need]:
        """Make a video."""
        needs: list[Need] = []
        shape, autoencoder = given.shape if given is not None else _fitting(self.spec), ""
        with torch.inference_mode(), standing_for(self.setting.device.type), self.meter:
            places = given.places if given is not None else None
            request = Request("", given=None if shape is None else _given(shape, places))

            def noted(name: str, make: Callable[[], Tensor]) -> Tensor:
                nonlocal shape, autoencoder
                part = name if name in self.sizes else ""
                spec = self.spec.parts()[part]
                story = self._key(spec, shape, request.given and request.given.places, autoencoder)
                with self.meter.section() as usage:
                    latent: Tensor = self.memo.once(self.meter, story, (), make)
                needs.append(Need(part, self.sizes[part], usage))
                shape, autoencoder = spec.shape(shape), _text(getattr(spec, "autoencoder", None))
                return latent

            video = self.stage.generate([request], keep=noted)
            with self.meter.section() as usage:
                for _ in video.chunks(at_once(video.height, video.width)):
                    pass
        return [*needs, Need(PIXELS, 0, usage)]

    def _key(self, *told: object) -> Hashable:
        """Return what the need of something depends on, the same in every dry run."""
        setting = self.setting
        return (*map(_text, told), str(setting.dtype), str(setting.device), setting.in_turn)

    def _settle(self, twins: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        """Put weights where they will be, and let networks run no more often than they have to."""
        parts = {name: part for name, part in self.stage.parts().items() if isinstance(part, LatentDiffusion)}
        released: set[nn.Module] = set()
        for name, part in parts.items():
            self.sizes[name] = 0
            part.residence = _Counted(self.meter, released)
            for kind, network in part.networks().items():
                if twin := twins.get((name, kind)):
                    setattr(part, kind, parts[twin[0]].networks()[kind])
                    continue
                self.sizes[name] += weight_bytes(network)
                self.meter.ignore(network.state_dict().values())
                if self.setting.in_turn and is_released(kind, network):
                    released.add(network)
                else:
                    self.meter.hold(weight_bytes(network))
                told = part.spec.networks()[kind], self.setting.dtype, self.setting.device
                self.memo.watch(self.meter, network, tuple(map(_text, told)))


def _at_hand(spec: StageSpec) -> StageSpec:
    """Return a spec whose stages hand their videos over in memory: files of videos need numbers."""
    return spec.model_copy(update={"handover": "latent"}) if isinstance(spec, CascadeSpec) else spec


def _text(value: object) -> str:
    return json.dumps(dump(value)) if isinstance(value, Spec) else str(value)


def _fitting(spec: StageSpec) -> VideoShape | None:
    """Return the shape of a video that goes in, if one does, as long as gives the stage's own."""
    wanted = spec.wanted()
    if wanted is None:
        return None
    first = next(iter(spec.parts().values()))
    most = first.shape().num_frames
    for num_frames in range(min(wanted.num_frames, most), 1, -1):
        shape = wanted.model_copy(update={"num_frames": num_frames})
        if first.shape(shape).num_frames <= most:
            return shape
    return wanted.model_copy(update={"num_frames": 1})


def _given(shape: VideoShape, places: tuple[int, ...] | None) -> Given:
    pixels = torch.empty(1, 3, shape.num_frames, shape.height, shape.width, device="meta")
    return Given(PixelVideo(pixels, shape.fps), places)


def weight_bytes(network: nn.Module) -> int:
    """Return the bytes of a network's weights and buffers."""
    return sum(tensor.nbytes for tensor in _state(network))


def _largest(network: nn.Module) -> int:
    return max((tensor.numel() * 4 for tensor in _state(network)), default=0)


def _state(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
