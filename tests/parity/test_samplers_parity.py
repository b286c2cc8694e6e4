"""Solvers and tables against recorded trajectories of diffusers and of the official code."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from lavie.samplers import LinearScheduleSpec, ScaledLinearScheduleSpec, ScheduleSpec, replay
from lavie.samplers.spacing import entries

pytestmark = pytest.mark.parity
GOLDEN = Path(__file__).parents[1] / "golden"
TRAJECTORIES = sorted([*GOLDEN.glob("sched_*.safetensors"), *GOLDEN.glob("resp_*.safetensors")])


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize("path", TRAJECTORIES, ids=lambda path: path.stem)
def test_recorded_trajectory_is_reproduced(path: Path) -> None:
    tensors, metadata = load(path)
    ours = replay(tensors, metadata)
    error = (ours.trajectory - tensors["x"]).abs().max() / tensors["x"].abs().max()
    assert error <= 1e-5
    timesteps = tensors["timesteps"] if "timesteps" in tensors else tensors["timestep_map"].flip(0)
    assert ours.timesteps == pytest.approx(timesteps.tolist(), abs=1e-3)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (LinearScheduleSpec(), "linear_1e-4_0.02"),
        (ScaledLinearScheduleSpec(), "scaled_linear_1e-4_0.02"),
        (ScaledLinearScheduleSpec(beta_start=0.00085, beta_end=0.012), "scaled_linear_0.00085_0.012"),
    ],
)
def test_alphas_cumprod_are_the_published_ones(spec: ScheduleSpec, key: str) -> None:
    expected = load(GOLDEN / "misc_tables.safetensors")[0][f"alphas_cumprod_f32.{key}"].double()
    alpha, _ = spec.build().scales(spec.build().sigmas)
    torch.testing.assert_close(alpha**2, expected, rtol=5e-6, atol=0)


@pytest.mark.parametrize("count", [5, 8, 50, 100, 250])
def test_respaced_timesteps_are_those_of_the_official_code(count: int) -> None:
    expected = load(GOLDEN / "misc_tables.safetensors")[0][f"space_timesteps.{count}"]
    assert entries("respaced", 1000, count)[::-1] == expected.tolist()


def test_leading_timesteps_are_the_ddim_ones_of_the_official_code() -> None:
    expected = load(GOLDEN / "misc_tables.safetensors")[0]["space_timesteps.ddim50"]
    assert entries("leading", 1000, 50)[::-1] == expected.tolist()


def test_respaced_products_are_those_of_the_official_code() -> None:
    tensors, _ = load(GOLDEN / "resp_ddim_15.safetensors")
    schedule = LinearScheduleSpec().build()
    sigmas = torch.tensor([schedule.at(entry) for entry in entries("respaced", 1000, 15)[::-1]], dtype=torch.float64)
    torch.testing.assert_close(1 / (1 + sigmas**2), tensors["alphas_cumprod"], rtol=1e-12, atol=0)


def test_a_mistake_of_a_thousandth_does_not_pass() -> None:
    tensors, metadata = load(GOLDEN / "sched_ddpm_lavie.safetensors")
    tensors["step_noise"] *= 1.001
    error = (replay(tensors, metadata).trajectory - tensors["x"]).abs().max() / tensors["x"].abs().max()
    assert error > 1e-4


def test_all_recordings_are_there() -> None:
    assert len(TRAJECTORIES) == 12
