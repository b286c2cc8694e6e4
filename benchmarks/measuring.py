"""How things are measured: one stopwatch, pairs in the order ABBA, quartiles, FLOPs and agreement."""

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

Run = Callable[[], Tensor]
MAX_ERROR = 1e-4
"""Largest error of a float32 result, absolute, or relative to the largest value if that is above 1."""
MAX_RELATIVE_ERROR = 0.02
"""Largest relative L2 error of a result in half precision."""
MAX_ROUNDS = 100


@dataclass(frozen=True)
class Place:
    """Where and how something runs."""

    device: torch.device
    dtype: torch.dtype


PLAIN = Place(torch.device("cpu"), torch.float64)
"""Where plain references run."""


@dataclass(frozen=True)
class Lap:
    """Seconds that one run took, by the clock and of the processor (all threads)."""

    wall: float
    cpu: float


class Stopwatch:
    """Times single runs; on a GPU it waits for the device before and after."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def lap(self, run: Callable[[], object]) -> Lap:
        """Run once and return what it took."""
        self._wait()
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        self._wait()
        return Lap(time.perf_counter() - wall, time.process_time() - cpu)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Limits:
    """How long to go on: at least so many pairs, and more until the seconds are used up."""

    min_rounds: int
    max_seconds: float

    def rounds(self, seconds: float) -> int:
        """Return the number of pairs if one takes so many seconds."""
        return max(self.min_rounds, min(MAX_ROUNDS, int(self.max_seconds / max(seconds, 1e-6))))


class Bench:
    """Times a case and its baseline in turn, and writes what it finds next to pytest-benchmark's own numbers."""

    def __init__(self, record: BenchmarkFixture, device: torch.device, limits: Limits, yardstick: Run) -> None:
        self.record = record
        self.watch = Stopwatch(device)
        self.limits = limits
        self.yardstick = yardstick

    def compare(self, case: Run, baseline: Run, expected: Tensor | None = None) -> None:
        """Time pairs in the order ABBA, with the yardstick before each, after one cold and one warm run of both.

        The cold run's answer is first checked against what a plain reference expects, if there is one. A ratio is the
        baseline's time over the case's in the same pair: above 1, the case is faster.
        """
        answers: list[Tensor] = []
        cold = self.watch.lap(lambda: answers.append(case())).wall
        if expected is not None:
            self.note(error=check(answers[0], expected))
        self.watch.lap(baseline)
        seconds = sum(self.watch.lap(run).wall for run in (case, baseline, self.yardstick))
        laps: list[Lap] = []
        others: list[Lap] = []
        yardstick: list[Lap] = []

        def before() -> None:
            yardstick.append(self.watch.lap(self.yardstick))
            if len(laps) % 2 == 0:
                others.append(self.watch.lap(baseline))

        def after() -> None:
            if len(laps) % 2 == 0:
                others.append(self.watch.lap(baseline))

        rounds = self.limits.rounds(seconds)
        self.record.pedantic(
            lambda: laps.append(self.watch.lap(case)), setup=before, teardown=after, rounds=rounds, iterations=1
        )
        pairs = list(zip(others, laps, strict=False))
        self.note(
            ratio=quartiles([other.wall / own.wall for other, own in pairs]),
            cpu_ratio=quartiles([other.cpu / max(own.cpu, 1e-9) for other, own in pairs]),
            sign_p=sign_test([other.wall - own.wall for other, own in pairs]),
            seconds=quartiles([own.wall for own in laps]),
            cpu_seconds=quartiles([own.cpu for own in laps]),
            cold_seconds=cold,
            yardstick_seconds=quartiles([lap.wall for lap in yardstick]),
        )

    def note(self, **facts: Any) -> None:
        """Add facts to the record."""
        self.record.extra_info.update(facts)


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    return {"median": middle, "q1": low, "q3": high}


def sign_test(differences: Sequence[float]) -> float:
    """Return how likely so one-sided a tally of signs is if both sides are equally fast (two-sided, exact)."""
    positive = sum(difference > 0 for difference in differences)
    count = len(differences)
    tail = sum(math.comb(count, k) for k in range(max(positive, count - positive), count + 1))
    return min(1.0, 2 * tail / 2**count)


def count_flops(run: Callable[[], object]) -> int:
    """Return the floating-point operations of a run over meta tensors, on the plain path."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def plain(module: nn.Module, call: Callable[[nn.Module], Tensor]) -> Tensor:
    """Return what a copy of a module answers in float64 with unfused attention."""
    with sdpa_kernel(SDPBackend.MATH):
        return call(copy.deepcopy(module).double())


def check(result: Tensor, expected: Tensor) -> float:
    """Return the largest error of a result, absolute or relative to the largest value if that is above 1.

    Raises:
        AssertionError: if it is too large for the dtype of the result.
    """
    dtype = result.dtype
    result, expected = result.detach().double().cpu(), expected.detach().double().cpu()
    error = float((result - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    relative = float((result - expected).norm() / expected.norm().clamp(min=1e-12))
    if dtype == torch.float32:
        assert error <= MAX_ERROR, f"differs from the plain reference by {error:.1e}, allowed {MAX_ERROR:.0e}"
    else:
        assert relative <= MAX_RELATIVE_ERROR, f"differs from the plain reference by {relative:.1%} (L2)"
    return error
