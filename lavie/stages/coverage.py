"""Coverage: how a stage makes videos longer or larger than its network sees at once."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from jaxtyping import Float
from torch import Tensor

from lavie.samplers.base import Sampler
from lavie.spec import Spec
from lavie.stages.source import Source

if TYPE_CHECKING:
    from lavie.stages.run import Run


@dataclass(frozen=True)
class Part:
    """A part of a latent: some of its frames, and a rectangle of rows and columns."""

    frames: range
    rows: range | None = None
    """None for all of them."""
    columns: range | None = None

    def of(self, x: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b c n p q"]:
        """Cut the part out of a tensor of the latent's size."""
        return x[:, :, _slice(self.frames), _slice(self.rows), _slice(self.columns)]

    def of_inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cut the part out of those inputs of conditioners that are as large as the latent."""
        return {name: self.of(value) if value.ndim == 5 else value for name, value in inputs.items()}


def _slice(indices: range | None) -> slice:
    return slice(None) if indices is None else slice(indices.start, indices.stop, indices.step)


class Coverage(ABC):
    """Leads one diffusion run to the latents of whole videos."""

    @abstractmethod
    def latent(self, run: "Run") -> Float[Tensor, "b c f h w"]:
        """Sample the run and return the latents to decode."""

    @abstractmethod
    def num_steps(self, num_frames: int) -> int:
        """Return how many steps a run of this many frames reports."""


class CoverageSpec(Spec, ABC):
    """How a stage makes videos longer or larger than its network sees at once."""

    kind: ClassVar[str] = "coverage"

    @abstractmethod
    def build(self, sampler: Sampler, source: Source | None) -> Coverage:
        """Build it for a stage with this solver and source; it has no parameters.

        Raises:
            SpecError: if it cannot work with them, with the reason.
        """


@final
class AtOnce(Coverage):
    """Shows the network the whole video in every step."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def latent(self, run: "Run") -> Float[Tensor, "b c f h w"]:
        """Sample the run and return the latents to decode."""
        run.check_prompts([Part(range(run.shape.num_frames))])
        return run.sample(run.denoise(), run.initial())

    def num_steps(self, num_frames: int) -> int:
        """Return the solver's steps."""
        return len(self.sampler.timesteps)


@final
class AtOnceSpec(CoverageSpec):
    """The whole video at once, as the network was trained."""

    type: Literal["at_once"] = "at_once"

    def build(self, sampler: Sampler, source: Source | None) -> AtOnce:
        """Build it."""
        return AtOnce(sampler)
