"""The options of `lavie generate`, and the places in the spec that some of them stand for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from lavie.cli.app import UsageError, Whole, complain
from lavie.errors import Fault, SpecError

if TYPE_CHECKING:
    from lavie.generation.choice import Pretrained
    from lavie.generation.given import GivenFiles
    from lavie.stages import StageSpec


@Parameter(name="*", group="What it starts from")
@dataclass(frozen=True)
class GivenOptions:
    """Pictures and videos, for models that start from them."""

    first_frame: Annotated[Path | None, Parameter(name=("--first-frame", "--image"))] = None
    """Picture that the video begins with."""
    last_frame: Path | None = None
    """Picture that the video ends with."""
    video: Path | None = None
    """Video file, or folder of numbered pictures: to go on from, to put frames between, or to make larger."""

    def files(self) -> "GivenFiles":
        """Return the files that are named."""
        from lavie.generation.given import GivenFiles

        return GivenFiles(self.first_frame, self.last_frame, self.video)

    def names(self) -> list[str]:
        """Return the options that were given."""
        each = {"--first-frame (--image)": self.first_frame, "--last-frame": self.last_frame, "--video": self.video}
        return [option for option, path in each.items() if path is not None]


@Parameter(name="*", group="What is made")
@dataclass(frozen=True)
class VideoOptions:
    """Size and rate, of a cascade's first stage; what is left out comes from the spec."""

    num_frames: Whole | None = None
    """Frames that the first stage makes; with --video, as many of its frames are used as that takes."""
    height: Whole | None = None
    """Pixels that the first stage makes, a multiple of its autoencoder's factor."""
    width: Whole | None = None
    """Pixels that the first stage makes, a multiple of its autoencoder's factor."""
    fps: float | None = None
    """Frames per second of the file, whichever stage decides on them; with --video, perhaps of that."""


@Parameter(name="*", group="How it is sampled")
@dataclass(frozen=True)
class SamplingOptions:
    """Sampler and guidance of a cascade's first stage; of the others by --set; what is left out comes from the spec."""

    steps: Whole | None = None
    """Steps of the first stage's sampler: more take longer and may look better."""
    guidance_scale: float | None = None
    """How strongly the first stage follows the prompt; 1 is not at all more than it was learned."""
    sampler: str | None = None
    """Another sampler for the first stage, by name: ddpm, ddim, euler, ..."""


@Parameter(name="*", group="With what model")
@dataclass(frozen=True)
class ModelOptions:
    """Spec, weights, device."""

    spec: str | None = None
    """Name of a shipped spec, or path of a spec file. [default: what --weights were made with; base-tiny, or with given
    frames first-frame-tiny]"""
    weights: Path | None = None
    """Folder of weights, as training writes it; shipped specs bring theirs."""
    pretrained: Path | None = None
    """Folder of published files, as downloaded, in place of --weights; converted once. Needs --spec."""
    converted: Path | None = None
    """Folder for what is converted of --pretrained. [default: lavie, in the folder itself]"""
    settings: Annotated[tuple[str, ...], Parameter(name="--set", show_default=False)] = ()
    """Change a value of the spec: path=value, in a cascade upscaling.sampler=ddim. May be given several times."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1; auto takes CUDA where there is one."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the networks; the noise is the same in all."""
    attention: str | None = None
    """Kernel that computes attention: sdpa, math, xformers. [default: sdpa, or what LAVIE_ATTENTION says]"""
    max_memory: str | None = None
    """Choose settings that keep below this, such as 12GB, as `lavie plan` shows them."""
    in_turn: bool = False
    """Load each network when it goes to work and release it afterwards: less memory, the same video."""

    def files(self) -> "Pretrained | None":
        """Return the published files that are named.

        Raises:
            UsageError: if options exclude or lack one another.
        """
        if self.pretrained is None and self.converted is not None:
            raise UsageError("--converted says where what is made of --pretrained goes; name that too")
        if self.pretrained is not None and self.weights is not None:
            raise UsageError("--weights and --pretrained both say where the networks come from: give one of them")
        if self.pretrained is not None and self.spec is None:
            raise UsageError("--pretrained needs the spec that the files are for, as in --spec cascade")
        if self.pretrained is None:
            return None
        from lavie.generation.choice import Pretrained

        return Pretrained(self.pretrained, self.converted, complain)


@Parameter(name="*", group="Where it goes")
@dataclass(frozen=True)
class OutputOptions:
    """Files."""

    output_dir: Path = Path("out")
    """Folder for the files; made if missing."""
    format: Literal["mp4", "webm", "gif", "png"] = "mp4"
    """File format; png is a folder of numbered pictures."""
    scale: Annotated[Whole, Parameter(validator=Number(gte=1, lte=64))] = 1
    """Write each pixel as a square of this many pixels a side: for small videos."""
    contact_sheet: bool = False
    """Also write one picture with a row of frames from each video."""
    keep_latents: bool = False
    """Leave what every stage has made in a folder beside the video."""
    overwrite: bool = False
    """Make and replace files that are already there."""


@dataclass(frozen=True)
class Choices:
    """What is to run, as far as options say it: which spec, and how it is changed."""

    model: ModelOptions
    video: VideoOptions
    sampling: SamplingOptions
    given: GivenOptions

    def overrides(self) -> list[str]:
        """Turn options into changes of the spec; another sampler keeps the number of steps.

        Raises:
            SpecError: if the spec, or a --set, is wrong.
        """
        overrides = list(self.model.settings)
        places = self._places()
        if self.sampling.sampler is not None:
            before = next(iter(self._spec().parts().values()))
            node = {"type": self.sampling.sampler, "num_inference_steps": before.sampler.num_inference_steps}  # type: ignore[attr-defined]
            overrides.append(f"{places['--sampler']}={json.dumps(node)}")
        return overrides + [f"{places[option]}={value}" for option, value in self._values().items() if places[option]]

    def _values(self) -> dict[str, int | float]:
        """Return the options that were given and stand for a number."""
        video, sampling = self.video, self.sampling
        values = {
            "--num-frames": video.num_frames,
            "--height": video.height,
            "--width": video.width,
            "--fps": video.fps,
            "--steps": sampling.steps,
            "--guidance-scale": sampling.guidance_scale,
        }
        return {option: value for option, value in values.items() if value is not None}

    def _places(self) -> dict[str, str]:
        """Return the place in the spec that each option stands for; of the first stage, if there are several."""
        if not self._values() and self.sampling.sampler is None:
            return {}
        from lavie.generation.given import rate_path

        spec = self._spec()
        first = next(iter(spec.parts()))
        prefix = f"{first}." if first else ""
        return {
            "--num-frames": f"{prefix}video.num_frames",
            "--height": f"{prefix}video.height",
            "--width": f"{prefix}video.width",
            "--fps": rate_path(spec) or "",
            "--steps": f"{prefix}sampler.num_inference_steps",
            "--guidance-scale": f"{prefix}guidance.scale",
            "--sampler": f"{prefix}sampler",
        }

    def _spec(self) -> "StageSpec":
        from lavie.generation.choice import choose_spec

        return choose_spec(self.model.spec, overrides=self.model.settings, weights=self.model.weights)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Name the option in errors about a place in the spec that the command line has set."""
        try:
            yield
        except SpecError as error:
            names = self._names()
            raise SpecError([_renamed(fault, fault.where or error.source, names) for fault in error.faults]) from None

    def _names(self) -> dict[str, str]:
        try:
            places = self._places()
        except SpecError:  # which is what is to be told then
            places = {}
        given = [*self._values(), *(["--sampler"] if self.sampling.sampler is not None else [])]
        names = {places[option]: option for option in given if places.get(option)}
        if (sampler := places.get("--sampler")) in names:
            names[f"{sampler}.type"] = "--sampler"
        sizes = [option for option in ("--num-frames", "--height", "--width") if option in given]
        if sizes and places:
            names[places["--height"].removesuffix(".height")] = ", ".join(sizes)
        names["given"] = ", ".join(self.given.names()) or "--video"
        return names | {
            "seed": "--seed",
            "device": "--device",
            "dtype": "--dtype",
            "attention": "--attention",
            "max_memory": "--max-memory",
        }


def _renamed(fault: Fault, where: str, names: dict[str, str]) -> Fault:
    path, message = fault.path, fault.message
    if not path and where.startswith("--set "):
        path = where.removeprefix("--set ").partition(":")[0]
    elif not path and message.partition(": ")[0] in names:
        path, _, message = message.partition(": ")
    return Fault("", message, names[path]) if path in names else Fault(fault.path, fault.message, where)


__all__ = ["Choices", "GivenOptions", "ModelOptions", "OutputOptions", "SamplingOptions", "VideoOptions"]
