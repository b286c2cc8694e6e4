"""Peak memory of a forward pass with every registered temporal layer, over what the weights take."""

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.bench_denoiser import LAYERS, spec_of
from benchmarks.measuring import Bench, quartiles
from benchmarks.peak import UnmeasurableError
from benchmarks.settings import Setting
from lavie import Registry

MAX_RUNS = 3


@pytest.mark.benchmark(group="memory")
@pytest.mark.parametrize("label", LAYERS)
def bench_peak_memory(
    label: str,
    bench: Bench,
    setting: Setting,
    registry: Registry,
    baseline_layer: str,
    peak: Callable[[dict[str, Any]], dict[str, float]],
) -> None:
    """Measure in fresh processes, this layer and the baseline's in turn; what is timed is a process's whole life."""
    spec_of(label, setting, registry)
    answers: list[dict[str, float]] = []
    others: list[dict[str, float]] = []
    try:
        bench.record.pedantic(
            lambda: answers.append(peak(LAYERS[label])),
            teardown=lambda: others.append(peak(LAYERS[baseline_layer])),
            rounds=min(bench.limits.min_rounds, MAX_RUNS),
        )
    except UnmeasurableError as error:
        pytest.skip(str(error))
    bench.note(
        case=label,
        baseline=baseline_layer,
        peak_bytes=quartiles([answer["peak"] for answer in answers])["median"],
        weight_bytes=answers[0]["weights"],
        ratio=quartiles([other["peak"] / max(own["peak"], 1.0) for other, own in zip(others, answers, strict=False)]),
    )
