"""Guidance: how the branches are joined, which are called, and in what order."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

import lavie.builtin
from lavie.registry import Registry
from lavie.samplers import ClassifierFreeSpec, EulerSpec, GuidanceSpec, LinearScheduleSpec, NoGuidanceSpec
from lavie.samplers.base import Denoise
from lavie.samplers.prediction import denoised_from

NOISY = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def conditional(noisy: Tensor, sigma: float) -> Tensor:
    return 0.5 * noisy + sigma


def unconditional(noisy: Tensor, sigma: float) -> Tensor:
    return 0.2 * noisy - sigma


def never(noisy: Tensor, sigma: float) -> Tensor:
    raise AssertionError("the unconditional branch was called")


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_a_scale_up_to_one_never_calls_the_unconditional_branch(scale: float) -> None:
    guided = ClassifierFreeSpec(scale=scale).build()(conditional, never)
    assert torch.equal(guided(NOISY, 2.0), conditional(NOISY, 2.0))


def test_no_guidance_never_calls_the_unconditional_branch() -> None:
    guided = NoGuidanceSpec().build()(conditional, never)
    assert torch.equal(guided(NOISY, 2.0), conditional(NOISY, 2.0))


@pytest.mark.parametrize("scale", [1.001, 1.5, 7.5, 100.0])
def test_guidance_goes_from_unconditional_through_conditional(scale: float) -> None:
    guided = ClassifierFreeSpec(scale=scale).build()(conditional, unconditional)
    step = conditional(NOISY, 2.0) - unconditional(NOISY, 2.0)
    torch.testing.assert_close(guided(NOISY, 2.0) - unconditional(NOISY, 2.0), scale * step, rtol=1e-4, atol=1e-3)


def test_guiding_denoised_latents_is_guiding_noise() -> None:
    schedule, sigma, scale = LinearScheduleSpec().build(), 3.0, 7.5
    generator = torch.Generator().manual_seed(1)
    with_text, without = (torch.randn(NOISY.shape, generator=generator) for _ in range(2))
    answers = [denoised_from(noise, NOISY, sigma, schedule, "epsilon") for noise in (with_text, without)]
    guided = ClassifierFreeSpec(scale=scale).build()(lambda *_: answers[0], lambda *_: answers[1])
    expected = denoised_from(without + scale * (with_text - without), NOISY, sigma, schedule, "epsilon")
    torch.testing.assert_close(guided(NOISY, sigma), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [-1.0, 101.0, float("nan")])
def test_absurd_scales_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        ClassifierFreeSpec(scale=scale)


REGISTRY = Registry(lavie.builtin)
WRAPPERS = ["rescale", "interval", "dynamic_thresholding", "perturbed_attention"]
EVERY: list[object] = [
    *REGISTRY.components("guidance"),
    *({"type": outer, "inner": {"type": inner, "inner": "apg"}} for outer, inner in permutations(WRAPPERS, 2)),
]
each_guidance = pytest.mark.parametrize("guidance", EVERY, ids=str)


def test_the_wrappers_are_all_of_those_that_hold_another() -> None:
    holders = [name for name, part in REGISTRY.components("guidance").items() if "inner" in part.cls.model_fields]
    assert sorted(holders) == sorted(WRAPPERS)


class Witness:
    """Three branches that write down who was asked, and with which tensor."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tensors: list[Tensor] = []

    def branch(self, name: str, share: float) -> Denoise:
        def denoise(noisy: Tensor, sigma: float) -> Tensor:
            self.asked.append(name)
            self.tensors.append(noisy)
            return share * noisy + share * sigma

        return denoise

    def guide(self, guidance: object) -> Denoise:
        wrap = REGISTRY.load(GuidanceSpec, guidance).build()
        return wrap(
            self.branch("conditional", 0.5),
            self.branch("unconditional", 0.2),
            perturbed=lambda places: self.branch("perturbed", 0.3),
        )


@each_guidance
@pytest.mark.parametrize("sigma", [0.1, 2.0, 100.0])
def test_every_branch_is_asked_at_most_once_and_the_conditional_one_last(guidance: object, sigma: float) -> None:
    witness = Witness()
    guided = witness.guide(guidance)
    for call in range(1, 3):
        noisy = NOISY + call
        guided(noisy, sigma)
        assert len(set(witness.asked)) == len(witness.asked)
        assert witness.asked[-1] == "conditional"
        assert all(tensor is noisy for tensor in witness.tensors)
        witness.asked.clear()
        witness.tensors.clear()


@each_guidance
def test_a_guidance_keeps_nothing_from_one_run_to_the_next(guidance: object) -> None:
    wrap = REGISTRY.load(GuidanceSpec, guidance).build()
    sampler = EulerSpec(num_inference_steps=4).build(LinearScheduleSpec().build())

    def run() -> Tensor:
        guided = wrap(conditional, unconditional, perturbed=lambda places: unconditional)
        return sampler.sample(guided, NOISY, lambda step, shape: torch.zeros(shape))

    assert torch.equal(run(), run())


@each_guidance
def test_samples_of_a_batch_are_guided_each_by_itself(guidance: object) -> None:
    def run(noisy: Tensor) -> Tensor:
        guided = Witness().guide(guidance)
        return torch.stack([guided(noisy, 3.0), guided(noisy.sin(), 2.0)])

    torch.testing.assert_close(run(NOISY)[:, 1:], run(NOISY[1:]))


@each_guidance
def test_guidance_works_in_the_dtype_of_the_latent(guidance: object) -> None:
    for dtype in (torch.float32, torch.float64):
        assert Witness().guide(guidance)(NOISY.to(dtype), 2.0).dtype == dtype
