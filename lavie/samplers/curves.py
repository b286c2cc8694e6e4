"""Schedules given by how the signal falls, from all of it to (nearly) none, rather than by betas."""

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Annotated, Literal, final

from pydantic import Field

from lavie.samplers.schedule import BetasSpec


class CurveSpec(BetasSpec, ABC):
    """A schedule given by the variance of the signal; each beta is at most 0.999 (arXiv 2102.09672, §3.2)."""

    @abstractmethod
    def _signal(self, t: float) -> float:
        """Return the variance of the signal at a time in [0, 1]; it falls to no less than 0 at 1."""

    def _betas(self) -> list[float]:
        count = self.num_train_timesteps
        signal = [self._signal(index / count) for index in range(count + 1)]
        return [min(1 - after / before, 0.999) for before, after in pairwise(signal)]


@final
class CosineScheduleSpec(CurveSpec):
    """Signal that falls as a squared cosine (arXiv 2102.09672, eq. 17)."""

    type: Literal["cosine"] = "cosine"

    def _signal(self, t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2


@final
class SigmoidScheduleSpec(CurveSpec):
    """Signal that falls as a stretch of the logistic curve (arXiv 2212.11972, §2)."""

    type: Literal["sigmoid"] = "sigmoid"
    start: Annotated[float, Field(ge=-10, le=0)] = -3.0
    """Where on the curve the least noise is, in [-10, 0]; nearer to 0 means noise sooner."""
    end: Annotated[float, Field(gt=0, le=10)] = 3.0
    """Where on the curve the most noise is, in (0, 10]; nearer to 0 means that the signal stays longer."""
    temperature: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    """How wide the curve is stretched, in [0.1, 10]; above 1 the fall is straighter."""

    def _signal(self, t: float) -> float:
        places = self.start + t * (self.end - self.start), self.start, self.end
        here, first, last = (1 / (1 + math.exp(place / self.temperature)) for place in places)
        return max((here - last) / (first - last), 0.0)
