"""A plan: what is to run, what it will need, and how it was made to fit."""

import shlex
from dataclasses import dataclass

import torch

from lavie.errors import Fault, SpecError
from lavie.planning.dry_run import PIXELS, Need, Setting, dry_run
from lavie.planning.levers import LEVERS
from lavie.planning.memo import Memo
from lavie.planning.process import resident_bytes
from lavie.planning.size import format_size
from lavie.planning.speed import Rates
from lavie.registry import Registry
from lavie.stages import Given, VideoShape
from lavie.stages.loading import Weights

LIBRARIES = 24 * 2**20
"""Bytes that torch's CPU kernels keep for themselves once they have run, compiled code above all; measured."""
WRITER = 200
"""Bytes that writing a video takes for every pixel of a frame: encoders hold dozens of frames; measured."""


@dataclass(frozen=True)
class Plan:
    """A setting and what it needs."""

    setting: Setting
    needs: tuple[Need, ...]
    """By stage, the making of pixels last."""
    program: int
    """Bytes that the program takes besides: code, libraries."""
    shape: VideoShape
    """What comes out."""
    limit: int | None = None
    """Bytes that must not be exceeded."""

    def peak(self, need: Need) -> int:
        """Return the most bytes at a time: of the process where the device is the CPU, else of the device."""
        writer = WRITER * self.shape.height * self.shape.width if need.name == PIXELS else 0
        on_cpu = self.setting.device.type == "cpu"
        return need.usage.peak + (self.program + writer if on_cpu else 0)

    @property
    def highest(self) -> int:
        """Return the peak of all stages."""
        return max(self.peak(need) for need in self.needs)

    def excess(self) -> int:
        """Return the bytes above the limit, of all stages together."""
        if self.limit is None:
            return 0
        return sum(max(self.peak(need) - self.limit, 0) for need in self.needs)

    def crowded(self) -> list[str]:
        """Return the stages that do not fit; the last one too if its pixels do not."""
        return [need.name for need in self.needs if self.limit is not None and self.peak(need) > self.limit]

    def seconds(self, rates: Rates) -> dict[str, float]:
        """Return how long each stage takes at these rates."""
        return {need.name: rates.seconds(need.usage.work) for need in self.needs}

    def options(self) -> list[str]:
        """Return what to add to the command line to run under this plan."""
        setting = self.setting
        options = [f"--set {shlex.quote(override)}" for override in setting.overrides]
        options += [f"--dtype {dtype_name(setting.dtype)}"] * (setting.dtype != torch.float32)
        return options + ["--in-turn"] * setting.in_turn


class Planner:
    """Makes plans for one video of one spec; what a dry run has told once is not asked again."""

    def __init__(self, registry: Registry, *, weights: Weights | None = None, given: Given | None = None) -> None:
        self.registry = registry
        self.weights = weights
        self.given = given
        self._memo = Memo()
        self._program: int | None = None

    def measure(self, setting: Setting, limit: int | None = None) -> Plan:
        """Return what a setting needs, whether or not it fits.

        Raises:
            SpecError: if parts of it depend on numbers that only a real run has.
        """
        needs = dry_run(setting, given=self.given, weights=self.weights, memo=self._memo)
        if self._program is None:  # with all that a dry run has imported, which stays
            self._program = resident_bytes() + LIBRARIES
        return Plan(
            setting,
            tuple(needs),
            self._program,
            setting.spec.shape(self.given.shape if self.given is not None else None),
            limit,
        )

    def fit(self, setting: Setting, limit: int) -> Plan:
        """Return a plan that stays below a limit in bytes, pulling levers in their order as long as it takes.

        A lever is pulled no further than it brings stages nearer to the limit.

        Raises:
            SpecError: if nothing fits, naming the smallest limit that would do.
        """
        best = self.measure(setting, limit)
        for lever in LEVERS:
            if not best.crowded():
                break
            for changed in lever(best.setting, best.crowded(), self.registry):
                plan = self.measure(changed, limit)
                if plan.excess() >= best.excess():
                    break
                best = plan
                if not plan.crowded():
                    break
        if best.crowded():
            tight = [name or "sampling" for name in best.crowded()]
            reason = f"{format_size(limit)} are too little for {' and '.join(tight)}, whatever is given up"
            smallest = f"the smallest limit that would do is {format_size(_rounded_up(best.highest))}"
            raise SpecError([Fault("max_memory", f"{reason}; {smallest}")])
        return best


def _rounded_up(num_bytes: int) -> int:
    """Return bytes rounded up to what is written of them, with a hundredth to spare for a process that has grown."""
    unit = 10**7 if num_bytes >= 10**9 else 10**6
    return -(-num_bytes * 101 // 100 // unit) * unit


def dtype_name(dtype: torch.dtype) -> str:
    """Return what a dtype is called on the command line."""
    return str(dtype).removeprefix("torch.")


__all__ = ["Plan", "Planner", "dtype_name"]
