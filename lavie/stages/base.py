"""What every stage is: a function from requests to videos, built from a spec."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from lavie.samplers.base import Step
from lavie.spec import Spec


@dataclass(frozen=True)
class Request:
    """What one video is made from; together with the stage's spec and weights it determines every pixel."""

    prompt: str
    negative_prompt: str = ""
    """What guidance moves away from; empty is the unconditional text."""
    seed: int = 0
    """In [0, 2^63): the same seed draws the same noise, whatever else is in the batch."""


OnStep = Callable[[Step], None]
"""Called after every solver step, for progress; what it raises ends the run."""


class Stage(nn.Module, ABC):
    """Networks and a sampler that turn requests into videos."""

    @abstractmethod
    def generate(self, requests: Sequence[Request], on_step: OnStep | None = None) -> Float[Tensor, "b c f h w"]:
        """Make one video per request, pixels in [-1, 1], float32 on the CPU."""

    @abstractmethod
    def num_steps(self) -> int:
        """Return how many steps `on_step` is called for per video."""

    @abstractmethod
    def unknown_words(self, prompt: str) -> list[str]:
        """Return the words of a prompt that the text encoder does not know or would cut off."""


class StageSpec(Spec, ABC):
    """A stage of the cascade, whole."""

    kind: ClassVar[str] = "stage"

    @abstractmethod
    def build(self) -> Stage:
        """Build the stage with fresh weights.

        Raises:
            ValueError: if parts of the spec do not fit one another.
        """
