"""Recorded trajectories, tables and losses: no networks, the same on every device and in every precision."""

import re
from bisect import bisect_right
from collections.abc import Callable

import torch
from torch import Tensor

from lavie.blocks.bias import relative_buckets
from lavie.blocks.conditioning import sinusoidal_features
from lavie.blocks.position import rotary_frequencies, rotary_turns, rotate
from lavie.samplers.prediction import add_noise, target
from lavie.samplers.recorded_tables import UnsupportedError
from lavie.samplers.replay import Replay, replay
from lavie.samplers.respaced import respaced_tables, retained_timesteps
from lavie.samplers.schedule import BetasSpec, LinearScheduleSpec, ScaledLinearScheduleSpec, VariancePreserving
from lavie.stages.given_frames import GivenFramesSpec, nearest
from lavie.verification.comparison import EXACT, Bound, Check, Comparison, MismatchError
from lavie.verification.golden import Golden

TRAJECTORY = Bound(1e-5, "relative")
LOSS = Bound(1e-6, "relative")
TABLE = Bound(1e-6, "absolute")
_PLACES = GivenFramesSpec(every=4).places(16)
"""Where interpolation puts the frames that it is given."""
_SCHEDULES: dict[str, type[LinearScheduleSpec | ScaledLinearScheduleSpec]] = {
    "linear": LinearScheduleSpec,
    "scaled_linear": ScaledLinearScheduleSpec,
}


def compare_sampler(golden: Golden) -> Comparison:
    """Drive the solver with the recorded answers of the network and the recorded noise.

    Raises:
        UnsupportedError: naming the scheduler or option that lavie has no counterpart for.
        MismatchError: if the network is told other timesteps than was recorded.
    """
    ours = replay(golden.tensors, golden.metadata)
    _compare_timesteps(ours, golden)
    checks = [Check("x", ours.trajectory, golden["x"], TRAJECTORY)]
    if "pred_xstart" in golden.tensors:
        checks.append(Check("pred_xstart", ours.denoised, golden["pred_xstart"], TRAJECTORY))
    tables = respaced_tables(ours.sigmas)
    return Comparison(checks + [Check(key, tables[key], golden[key], TABLE) for key in tables if key in golden.tensors])


def _compare_timesteps(ours: Replay, golden: Golden) -> None:
    recorded = golden.tensors.get("timesteps")
    if recorded is None:
        recorded = golden["timestep_map"].flip(0)
    if len(ours.timesteps) != len(recorded):
        raise MismatchError(f"the network is called {len(ours.timesteps)} times, recorded were {len(recorded)}")
    for index, (found, expected) in enumerate(zip(ours.timesteps, recorded.tolist(), strict=True)):
        # Solvers that step between entries of the table round what they tell the network, each in its own way.
        if abs(found - expected) > 1:
            raise MismatchError(f"the network is told timestep {found:g} at step {index}, recorded was {expected:g}")


def compare_tables(golden: Golden) -> Comparison:
    """Compute every table that lavie has a function for."""
    checks, missing = [], []
    for key, expected in golden.tensors.items():
        name, _, rest = key.partition(".")
        if name in _ARGUMENTS or rest in _ARGUMENTS.get(f"{name}.", ()):
            continue
        try:
            found = _TABLES[name](golden, rest) if name in _TABLES else None
        except UnsupportedError:
            found = None
        if found is None:
            missing.append(key)
        else:
            checks.append(Check(key, found, expected, TABLE if expected.is_floating_point() else EXACT))
    return Comparison(checks, missing)


def compare_losses(golden: Golden) -> Comparison:
    """Compute the losses that the interpolation and the super-resolution network are trained with.

    Both learn from the first four channels; the interpolation network sees key frames beside them, clean or noised.
    """
    schedule = _schedule(golden.metadata["schedule"])
    sigma = schedule.sigmas[golden["t"]]
    latent, noise, cond, t = golden["x_start"], golden["noise"][:, :4], golden["cond"], golden["t"]
    noisy = add_noise(latent, noise, sigma, schedule)
    noised = add_noise(cond, golden["aug_noise"], schedule.sigmas[golden["t_head"]], schedule)
    interpolation, upscaling = (_stand_in(golden.metadata[f"model_{name}"]) for name in ("interp", "vsr"))
    velocity = target(latent, noise, sigma, schedule, "v_prediction")
    found = {
        "q_sample": noisy,
        "interp.loss": _loss(interpolation(torch.cat((noisy, cond), dim=1), t), noise),
        "interp.loss_with_cond_noise_aug": _loss(interpolation(torch.cat((noisy, noised), dim=1), t), noise),
        "vsr.v_target": velocity,
        "vsr.loss": _loss(upscaling(noisy, t), velocity),
    }
    return Comparison([Check(key, ours, golden[key], LOSS) for key, ours in found.items() if key in golden.tensors])


def _loss(prediction: Tensor, wanted: Tensor) -> Tensor:
    return (prediction - wanted).square().flatten(1).mean(dim=1)


def _stand_in(formula: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function that stands for the network: a weighted sum of its inputs and the sine of the timestep.

    Raises:
        UnsupportedError: if the formula is another one.
    """
    terms = re.fullmatch(r"((?:^|\s*\+ *)[0-9.]+\*(?:inp(?:\[:, (?::4|-4:)\])?|sin\(t/1000\)))+", formula.strip())
    if terms is None:
        raise UnsupportedError(f"the formula {formula!r} is not known")
    weights = [(float(weight), term) for weight, term in re.findall(r"([0-9.]+)\*([a-z]+[^+]*)", formula)]

    def run(x: Tensor, t: Tensor) -> Tensor:
        values = {
            "inp": x,
            "inp[:, :4]": x[:, :4],
            "inp[:, -4:]": x[:, -4:],
            "sin(t/1000)": torch.sin(t.to(x.dtype) / 1000).reshape(-1, 1, 1, 1, 1),
        }
        return sum((weight * values[term.strip()] for weight, term in weights), start=torch.zeros(()))

    return run


def _schedule(text: str) -> VariancePreserving:
    """Build the schedule that a text such as `linear_1e-4_0.02` or `linear 1e-4..0.02, 1000 steps` names.

    Raises:
        UnsupportedError: if it names none.
    """
    named = re.match(r"(scaled_linear|linear)[ _]([0-9.e-]*[0-9])(?:_|\.\.)([0-9.e-]*[0-9])(?:, (\d+) steps)?", text)
    if named is None:
        raise UnsupportedError(f"the schedule {text!r} has no counterpart")
    name, start, end, count = named.groups()
    spec: BetasSpec = _SCHEDULES[name](
        beta_start=float(start), beta_end=float(end), num_train_timesteps=int(count or 1000)
    )
    return spec.build()


def _buckets(golden: Golden, num_frames: str) -> Tensor:
    return relative_buckets(int(num_frames), num_buckets=32, max_distance=32)


def _features(golden: Golden, dim: str) -> Tensor:
    return sinusoidal_features(golden["timesteps"], int(dim))


def _rotary(golden: Golden, part: str) -> Tensor:
    frequencies = rotary_frequencies(2 * len(golden["rotary.freqs"])).float()
    if part == "freqs":
        return frequencies
    x = golden["rotary.in"]
    return rotate(x, rotary_turns(x.shape[-2], dim=2 * len(frequencies)))


def _alphas_cumprod(golden: Golden, name: str) -> Tensor:
    return _schedule(name).alphas_cumprod


def _timesteps(golden: Golden, name: str) -> Tensor:
    """Return the timesteps that respaced diffusion retains."""
    return torch.tensor(retained_timesteps(name.replace("_", ","), 1000))


def _key_frames(golden: Golden, part: str) -> Tensor:
    """Return which of 61 frames each of them is made from, every fourth one being a key."""
    return torch.tensor([_PLACES[nearest(_PLACES, frame)] for frame in range(61)])


def _read_frames(golden: Golden, part: str) -> Tensor:
    """Return which of 16 frames the release reads for each of 61: the last one whose place has come."""
    return torch.tensor([bisect_right(_PLACES, frame) - 1 for frame in range(61)])


def _low_res_noise(golden: Golden, part: str) -> Tensor:
    schedule = ScaledLinearScheduleSpec().build()
    sigma = schedule.sigmas[golden["vsr_noise_aug.level"]]
    return add_noise(golden["vsr_noise_aug.image"], golden["vsr_noise_aug.noise"], sigma, schedule)


_TABLES: dict[str, Callable[[Golden, str], Tensor | None]] = {
    "rel_pos_bucket": _buckets,
    "timestep_embedding": _features,
    "rotary": _rotary,
    "alphas_cumprod_f32": _alphas_cumprod,
    "space_timesteps": _timesteps,
    "vsr_noise_aug": _low_res_noise,
    "interp_cond_frame_source": _key_frames,
    "interp_input_frame_index_16_to_61": _read_frames,
}
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "timesteps": (),
    "rotary.": ("in",),
    "vsr_noise_aug.": ("image", "level", "noise"),
}
"""Entries that are inputs of other entries: whole, or below a name."""
