"""Perturbed-attention guidance: the maths, and with a real network that goes blind at chosen places."""

import pytest
import torch
from torch import Tensor

from lavie.blocks.base import Conditioning
from lavie.blocks.spatial import blinded
from lavie.blocks.transformer import TransformerSpec
from lavie.blocks.unet import NormSpec, UNetSpec
from lavie.errors import SpecError
from lavie.samplers import LinearScheduleSpec, NoGuidanceSpec, PerturbedAttentionSpec, make_denoise
from lavie.samplers.base import Denoise
from lavie.spec import PerLevel

NOISY = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def conditional(noisy: Tensor, sigma: float) -> Tensor:
    return 0.5 * noisy + sigma


def unconditional(noisy: Tensor, sigma: float) -> Tensor:
    return 0.2 * noisy - sigma


def hampered(noisy: Tensor, sigma: float) -> Tensor:
    return 0.4 * noisy.sin()


def test_the_step_away_from_the_hampered_answer_is_added_to_the_inner_guidance() -> None:
    spec = PerturbedAttentionSpec(scale=2.0)
    guided = spec.build()(conditional, unconditional, perturbed=lambda places: hampered)
    found = guided(NOISY, 2.0) - spec.inner.build()(conditional, unconditional)(NOISY, 2.0)
    torch.testing.assert_close(found, 2.0 * (conditional(NOISY, 2.0) - hampered(NOISY, 2.0)))


def test_a_scale_of_zero_asks_for_no_hampered_network() -> None:
    guided = PerturbedAttentionSpec(scale=0.0, inner=NoGuidanceSpec()).build()(conditional, unconditional)
    assert torch.equal(guided(NOISY, 2.0), conditional(NOISY, 2.0))


def test_a_stage_without_a_hampered_network_is_told_so() -> None:
    with pytest.raises(SpecError, match=r"guidance: perturbed_attention asks for .* this stage does not offer; choose"):
        PerturbedAttentionSpec().build()(conditional, unconditional)


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(ValueError, match="places"):
        PerturbedAttentionSpec(places=("middle",))


def test_it_drives_a_network_that_goes_blind_where_it_says() -> None:
    """As a stage lends it: the same network and text, under a conditioning that blinds some places."""
    torch.manual_seed(0)
    network = UNetSpec(
        channels=(8, 16),
        num_res_blocks=1,
        attention=PerLevel[bool](everywhere=True),
        context_dim=6,
        norm=NormSpec(groups=4),
        transformer=TransformerSpec(num_heads=PerLevel[int](everywhere=1)),
    ).build()
    schedule, cond = LinearScheduleSpec().build(), Conditioning(torch.randn(1, 5, 6))

    def perturbed(places: frozenset[int | str]) -> Denoise:
        return make_denoise(network, schedule, "epsilon", blinded(network, cond, places))

    def guided(*places: int | str) -> Tensor:
        spec = PerturbedAttentionSpec(inner=NoGuidanceSpec(), places=places)
        plain = make_denoise(network, schedule, "epsilon", cond)
        with torch.inference_mode():
            return spec.build()(plain, plain, perturbed=perturbed)(NOISY, 2.0)

    answers = [guided("mid"), guided(0), guided(1, "mid")]
    assert all(answer.isfinite().all() for answer in answers)
    assert not any(torch.allclose(one, other) for one, other in zip(answers, answers[1:] + answers[:1], strict=True))
    with pytest.raises(SpecError, match="no self-attention at 5; it has some at: 0, 1, mid"):
        guided(5)
