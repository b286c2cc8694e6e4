"""Multistep sampling of latent consistency models (arXiv 2310.04378, algorithm 3 and appendix C)."""

from typing import Annotated, Literal, final

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lavie.errors import Fault, SpecError
from lavie.samplers.base import Noise, OneStepSampler, SamplerSpec, draw
from lavie.samplers.grid import unit_scale
from lavie.samplers.schedule import Schedule
from lavie.samplers.spacing import check_count
from lavie.spec import Count

SIGMA_DATA = 0.5


@final
class LCM(OneStepSampler):
    """Jumps to the clean latent, and noises it again to the next level."""

    def __init__(self, schedule: Schedule, sigmas: list[float], timestep_scaling: float) -> None:
        super().__init__(schedule, sigmas, unit_scale(schedule, sigmas[0]))
        self.timestep_scaling = timestep_scaling

    def move(
        self, index: int, noisy: Float[Tensor, "b c f h w"], denoised: Float[Tensor, "b c f h w"], noise: Noise
    ) -> tuple[Float[Tensor, "b c f h w"], Float[Tensor, "b c f h w"]]:
        """Jump to the clean latent and back up; `noise` is called at every step but the last."""
        (sigma, sigma_next), scaled = self.interval(index), self.timesteps[index] * self.timestep_scaling
        total = scaled**2 + SIGMA_DATA**2
        view = noisy * self.schedule.scales(sigma)[0]
        denoised = scaled / total**0.5 * denoised + SIGMA_DATA**2 / total * view
        return denoised + sigma_next * draw(noise, index, denoised) if sigma_next > 0 else denoised, denoised


@final
class LCMSpec(SamplerSpec):
    """Sampler of latent consistency models: one to eight steps, for networks distilled for it only."""

    type: Literal["lcm"] = "lcm"
    num_inference_steps: Count = 4
    """Steps of the solver; each calls the network once."""
    original_inference_steps: Count = 50
    """Steps of the grid that the network was distilled on; the steps are chosen among them."""
    timestep_scaling: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """How fast the network's input is left out of its answer as the timestep grows, in (0, 1000]."""

    def build(self, schedule: Schedule) -> LCM:
        """Choose steps evenly among those of distillation, from the last timestep down.

        Raises:
            SpecError: if there are not as many.
        """
        original, count = self.original_inference_steps, self.num_inference_steps
        check_count(schedule.num_train_timesteps, original)
        if count > original:
            message = f"{count} steps cannot be chosen among {original}; raise original_inference_steps or take fewer"
            raise SpecError([Fault("num_inference_steps", message)])
        stride = schedule.num_train_timesteps // original
        chosen = [original - int(index * (original / count)) for index in range(count)]
        return LCM(schedule, [*(schedule.at(each * stride - 1.0) for each in chosen), 0.0], self.timestep_scaling)
