"""Every solver's order of convergence, on the Gaussian case with its closed form: the table of docs/kinds.md.

Errors are taken before the step to zero noise, which no solver can make shorter.
"""

import math
import re
from pathlib import Path

import pytest
import torch
from gaussian_case import MEAN, STD, Moments, drawn_by, exact
from torch import Tensor

import lavie.builtin
from lavie.registry import Registry
from lavie.samplers import FlowScheduleSpec, LCMSpec, LinearScheduleSpec, SamplerSpec
from lavie.samplers.schedule import Schedule

REGISTRY = Registry(lavie.builtin)
VP, FLOW = LinearScheduleSpec().build(), FlowScheduleSpec().build()
each_schedule = pytest.mark.parametrize("schedule", [VP, FLOW], ids=["vp", "flow"])

FLOWS: list[tuple[str, dict[str, object], int]] = [
    ("euler", {"spacing": "karras"}, 1),
    ("ddim", {"spacing": "trailing"}, 1),
    ("ddim", {"spacing": "leading"}, 1),
    ("heun", {"spacing": "karras"}, 2),
    ("heun", {"spacing": "exponential"}, 2),
    ("dpmpp_2m", {"spacing": "karras"}, 2),
    ("dpmpp_2m", {"spacing": "exponential"}, 2),
    ("dpmpp_2m_sde", {"spacing": "exponential", "eta": 0.0}, 2),
    ("unipc", {"spacing": "karras", "order": 1}, 2),
    ("unipc", {"spacing": "karras", "order": 2}, 3),
    ("unipc", {"spacing": "karras", "order": 3}, 4),
]
PROCESSES: list[tuple[str, dict[str, object], int]] = [
    ("ddpm", {"spacing": "trailing"}, 1),
    ("ddpm", {"spacing": "trailing", "variance": "fixed_large"}, 1),
    ("ddim", {"spacing": "trailing", "eta": 1.0}, 1),
    ("euler_ancestral", {"spacing": "exponential"}, 1),
    ("euler_ancestral", {"spacing": "karras"}, 1),
    ("dpmpp_2m_sde", {"spacing": "exponential"}, 2),
    ("dpmpp_2m_sde", {"spacing": "karras"}, 2),
]


def last(name: str, options: dict[str, object], schedule: Schedule, count: int, eta: float) -> tuple[Moments, Moments]:
    """Return what a solver draws just before zero noise, and what it should."""
    spec = REGISTRY.load(SamplerSpec, {"type": name, "num_inference_steps": count, **options})
    sampler = spec.build(schedule)
    found = drawn_by(sampler)[-2]
    return found, exact(sampler.sigmas[0].item(), found.sigma, eta)


def error_of_the_mean(pair: tuple[Moments, Moments]) -> float:
    found, due = pair
    return max(abs(found.mean_of_zero - due.mean_of_zero), abs(found.gain - due.gain))


def error_of_the_variance(pair: tuple[Moments, Moments]) -> float:
    found, due = pair
    return abs(found.variance - due.variance)


@each_schedule
@pytest.mark.parametrize(("name", "options", "order"), FLOWS, ids=str)
def test_the_probability_flow_is_followed_with_the_order_of_the_solver(
    name: str, options: dict[str, object], order: int, schedule: Schedule
) -> None:
    coarse, fine = (error_of_the_mean(last(name, options, schedule, count, eta=0)) for count in (80, 160))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


@each_schedule
@pytest.mark.parametrize(("name", "options", "order"), PROCESSES, ids=str)
def test_the_reverse_process_has_the_exact_mean_and_a_variance_of_the_order_of_the_solver(
    name: str, options: dict[str, object], order: int, schedule: Schedule
) -> None:
    coarse, fine = (last(name, options, schedule, count, eta=1) for count in (80, 160))
    assert error_of_the_mean(coarse) < 1e-12
    assert math.log2(error_of_the_variance(coarse) / error_of_the_variance(fine)) == pytest.approx(order, abs=0.25)


@each_schedule
def test_half_of_the_noise_converges_in_mean_and_variance(schedule: Schedule) -> None:
    options: dict[str, object] = {"spacing": "exponential", "eta": 0.5}
    coarse, fine = (last("dpmpp_2m_sde", options, schedule, count, eta=0.5) for count in (80, 160))
    for error in (error_of_the_mean, error_of_the_variance):
        assert math.log2(error(coarse) / error(fine)) == pytest.approx(2, abs=0.25)


@each_schedule
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_consistency_function_is_sampled_without_error_in_any_number_of_steps(schedule: Schedule, count: int) -> None:
    """What LCM is made for: a network that leads to the end of the probability flow at once."""

    def jump(noisy: Tensor, sigma: float) -> Tensor:
        return MEAN + (noisy - MEAN) * STD / (STD**2 + sigma**2) ** 0.5

    sampler = LCMSpec(num_inference_steps=count, timestep_scaling=1000).build(schedule)
    sigma = sampler.sigmas[0].item()
    generator = torch.Generator().manual_seed(0)

    def drawn(_: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    noisy = MEAN + (STD**2 + sigma**2) ** 0.5 * drawn(0, (1, 1, 1, 200, 200))
    found = sampler.sample(jump, noisy / sampler.initial_scale, drawn)
    assert found.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert found.std().item() == pytest.approx(STD, abs=0.02)


def test_the_docs_list_these_orders() -> None:
    text = (Path(__file__).parents[2] / "docs" / "kinds.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| ([\d–]+|—) \|", text, re.MULTILINE))
    orders: dict[str, set[int]] = {}
    for name, _, order in FLOWS + PROCESSES:
        orders.setdefault(name, set()).add(order)
    expected = {name: "–".join(str(end) for end in sorted({min(all_), max(all_)})) for name, all_ in orders.items()}
    assert listed == {**expected, "lcm": "—", "free_init": "—"}
    assert set(listed) == set(REGISTRY.components("sampler"))
