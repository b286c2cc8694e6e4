"""`lavie plan`: what a video will need, before anything runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lavie.cli.app import DONE, complain, say
from lavie.cli.options import Choices, GivenOptions, ModelOptions, SamplingOptions, VideoOptions

if TYPE_CHECKING:
    from lavie.planning import Plan, Rates


def plan(
    spec: str,
    /,
    *,
    max_memory: str | None = None,
    given: GivenOptions = GivenOptions(),
    video: VideoOptions = VideoOptions(),
    sampling: SamplingOptions = SamplingOptions(),
    settings: Annotated[tuple[str, ...], Parameter(name="--set", show_default=False)] = (),
    weights: Path | None = None,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    in_turn: bool = False,
) -> int:
    """Predict weights, memory and time of every stage, and make a video fit into memory.

    The code that would make the video runs without its numbers, so nothing is loaded and little is computed. Memory is
    that of the whole process, or of the device where that is not the CPU. A model that starts from a video, but is
    given none, is planned for one of the size that it wants. Times come from a trial of a second: they are estimates,
    for this machine as it is now.

    Parameters
    ----------
    spec
        Name of a shipped spec, or path of a spec file.
    max_memory
        Choose settings that keep below this, such as 12GB: first those that change nothing but time. Prints the options
        with which `lavie generate` runs so; it also takes --max-memory itself.
    settings
        Change a value of the spec first: path=value. May be given several times.
    weights
        Folder of weights, to tell which stages share networks; without it, those with equal specs do.
    device
        auto, cpu, cuda or cuda:1; auto takes CUDA where there is one.
    dtype
        Precision of the networks.
    in_turn
        Load each network when it goes to work, and release it after.
    """
    model = ModelOptions(spec=spec, weights=weights, settings=settings, device=device, dtype=dtype)
    choices = Choices(model, video, sampling, given)
    with choices.naming():
        import torch

        from lavie.generation.choice import choose_spec, find_device
        from lavie.generation.given import Wish, read_given
        from lavie.generation.model import DTYPES, Model
        from lavie.planning import Planner, Setting, measure_rates, parse_size
        from lavie.registry import installed
        from lavie.stages.loading import weights_in

        limit = None if max_memory is None else parse_size(max_memory)
        chosen = choose_spec(spec, overrides=choices.overrides())
        setting = Setting(chosen, torch.device(find_device(device)), DTYPES[dtype], in_turn)
        folders = None if weights is None else weights_in(weights, chosen)
        frames = None
        if given.names():
            unloaded = Model(chosen, spec, folders or {}, str(setting.device), dtype, installed())
            frames = read_given(given.files(), unloaded, Wish(video.num_frames, video.fps), complain)
        planner = Planner(installed(), weights=folders, given=frames)
        made = planner.measure(setting) if limit is None else planner.fit(setting, limit)
    rates = measure_rates(made.setting.device, made.setting.dtype)
    for line in [*heading(spec, made), *table(made, rates), *advice(made)]:
        say(line)
    return DONE


def heading(name: str, made: "Plan") -> list[str]:
    """Say what is planned."""
    from lavie.planning.plan import dtype_name

    setting, shape = made.setting, made.shape
    video = f"{shape.num_frames} frames of {shape.height}×{shape.width} at {shape.fps:g} fps"
    return [f"{name}: {video}, {dtype_name(setting.dtype)} on {setting.device}"]


def table(made: "Plan", rates: "Rates") -> list[str]:
    """Return a row for every stage, and one for all."""
    from lavie.planning import format_size

    seconds = made.seconds(rates)
    rows = [("stage", "weights", "peak memory", "time, about")]
    for need in made.needs:
        weights = format_size(need.weights) if need.weights else "-"
        name = need.name or "sampling"
        rows.append((name, weights, format_size(made.peak(need)), duration(seconds[need.name])))
    total = sum(need.weights for need in made.needs)
    rows.append(("whole", format_size(total), format_size(made.highest), duration(sum(seconds.values()))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_columns(row, widths) for row in rows]


def _columns(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
    return "  ".join([first.strip().ljust(widths[0]), *others])


def advice(made: "Plan") -> list[str]:
    """Say what the numbers hold for, and how to run so."""
    from lavie.planning import format_size

    lines = []
    if made.setting.device.type == "cpu":
        lines.append(f"Peaks are of the whole process, {format_size(made.program)} of which are the program itself.")
    if made.limit is not None:
        options = made.options()
        how = "with these options:" if options else "as it is."
        lines += [f"Fits into {format_size(made.limit)} {how}", *(f"  {option}" for option in options)]
    return lines


def duration(seconds: float) -> str:
    """Write a time to two numbers."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
