"""Respaced diffusion, against its own formulas written out in betas and posterior means (arXiv 2102.09672, §4)."""

import math

import pytest
import torch
from torch import Tensor

from lavie.samplers import UnsupportedError, replay
from lavie.samplers.respaced import read_respaced, respaced_answers, respaced_tables, retained_timesteps

METADATA = {
    "respacing": "15",
    "noise_schedule": "linear 1e-4..0.02, 1000 steps",
    "mean_type": "epsilon",
    "var_type": "fixed_large",
    "clip_denoised": "false",
    "sampler": "reference respaced gaussian diffusion, ddim_sample_loop",
    "eta": "0.0",
    "model": "eps = 0.3*inp[:, :4] + 0.2*inp[:, -4:] + 0.1*sin(t/1000), inp = concat([x, cond], channel)",
}
SHAPE = (2, 4, 3, 4, 4)
IMPLICIT, ANCESTRAL = METADATA["sampler"], "p_sample_loop (ancestral)"


def draw(seed: int, *size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alphas_of(schedule: str) -> list[float]:
    if schedule.startswith("linear"):
        betas = [1e-4 + (0.02 - 1e-4) * index / 999 for index in range(1000)]
    else:
        curve = [math.cos((index / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for index in range(1001)]
        betas = [min(1 - curve[index + 1] / curve[index], 0.999) for index in range(1000)]
    products, product = [], 1.0
    for beta in betas:
        product *= 1 - beta
        products.append(product)
    return products


def reference(metadata: dict[str, str], retained: list[int], noises: Tensor, cond: Tensor) -> list[Tensor]:
    """Sample as the papers write it, in the network's view and with the betas of the retained timesteps."""
    products = alphas_of(metadata["noise_schedule"])
    x = draw(0, *SHAPE)
    found, eta = [x], float(metadata["eta"])
    for index in reversed(range(len(retained))):
        timestep = retained[index]
        alpha, before = products[timestep], products[retained[index - 1]] if index else 1.0
        answer = 0.3 * x + 0.2 * cond + 0.1 * math.sin(timestep / 1000)
        clean = {
            "epsilon": (x - (1 - alpha) ** 0.5 * answer) / alpha**0.5,
            "start_x": answer,
            "v": alpha**0.5 * x - (1 - alpha) ** 0.5 * answer,
        }[metadata["mean_type"]]
        if metadata["clip_denoised"] == "true":
            clean = clean.clamp(-1, 1)
        beta = 1 - alpha / before
        small = beta * (1 - before) / (1 - alpha)
        if metadata["sampler"] == IMPLICIT:
            noise = (x - alpha**0.5 * clean) / (1 - alpha) ** 0.5
            spread = eta * small**0.5
            mean = before**0.5 * clean + (1 - before - spread**2) ** 0.5 * noise
        else:
            mean = (before**0.5 * beta * clean + (alpha / before) ** 0.5 * (1 - before) * x) / (1 - alpha)
            spread = (small if metadata["var_type"] == "fixed_small" else beta) ** 0.5
        x = mean + (spread * noises[len(found) - 1] if index else 0.0)
        found.append(x)
    return found


@pytest.mark.parametrize(
    ("respacing", "retained"),
    [
        ("2", [0, 999]),
        ("9", [round(index * 999 / 8) for index in range(9)]),
        ("ddim8", list(range(0, 1000, 125))),
        ("ddim7", list(range(0, 1000, 143))),
        ("3,2", [0, 250, 499, 500, 999]),
        ("1,2,1", [0, 334, 666, 667]),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eta": "0.5"},
        {"eta": "1.0", "clip_denoised": "true"},
        {"mean_type": "v", "noise_schedule": "cosine, 1000 steps"},
        {"sampler": ANCESTRAL},
        {"sampler": ANCESTRAL, "var_type": "fixed_small", "clip_denoised": "true"},
        {"sampler": ANCESTRAL, "mean_type": "start_x"},
    ],
    ids=str,
)
def test_trajectories_are_those_of_the_formulas(respacing: str, retained: list[int], options: dict[str, str]) -> None:
    metadata = {**METADATA, "respacing": respacing, **options}
    noises, cond = draw(1, len(retained), *SHAPE), draw(2, *SHAPE)
    expected = torch.stack(reference(metadata, retained, noises, cond))
    ours = replay({"x": expected, "cond": cond, "step_noise": noises}, metadata)
    assert ours.timesteps == pytest.approx(retained[::-1])
    torch.testing.assert_close(ours.trajectory, expected, rtol=1e-8, atol=1e-8 * expected.abs().max().item())


def test_tables_are_those_of_the_retained_timesteps() -> None:
    sampler = read_respaced({**METADATA, "respacing": "4"}).sampler
    products = [alphas_of("linear")[timestep] for timestep in (0, 333, 666, 999)]
    tables = respaced_tables(sampler.sigmas)
    assert tables["alphas_cumprod"].tolist() == pytest.approx(products)
    assert tables["alphas_cumprod_prev"].tolist() == pytest.approx([1.0, *products[:3]])
    betas = [1 - after / before for before, after in zip([1.0, *products[:3]], products, strict=True)]
    assert tables["betas"].tolist() == pytest.approx(betas)
    assert tables["posterior_variance"][0] == 0
    assert tables["posterior_variance"][2].item() == pytest.approx(betas[2] * (1 - products[1]) / (1 - products[2]))


@pytest.mark.parametrize(
    "option",
    [
        {"respacing": "600,500"},
        {"respacing": "ddim600"},
        {"respacing": "fast27"},
        {"noise_schedule": "sqrt"},
        {"mean_type": "previous_x"},
        {"sampler": "plms"},
        {"sampler": "p_sample_loop", "var_type": "learned"},
    ],
    ids=str,
)
def test_respaced_diffusion_of_another_kind_is_refused_by_name(option: dict[str, str]) -> None:
    with pytest.raises(UnsupportedError, match=next(iter(option.values()))):
        read_respaced({**METADATA, **option})


def test_sections_say_why_they_do_not_fit() -> None:
    with pytest.raises(UnsupportedError, match="600 steps cannot be chosen among the 500 of section 1"):
        retained_timesteps("600,500", 1000)


@pytest.mark.parametrize("model", ["another", "eps = 0.3*inp[:, :4] + tanh(t)", "eps = inp, nothing else"])
def test_an_unknown_stand_in_network_is_refused(model: str) -> None:
    with pytest.raises(UnsupportedError, match="is not known"):
        respaced_answers({"cond": torch.ones(1, 4, 1, 1, 1)}, {"model": model})
