"""Stages are compared with plain methods on what they did not learn, and the figures are right."""

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from small_model import small_spec, small_weights
from torch import Tensor

from lavie.data.shapes import ShapesSpec
from lavie.metrics import psnr
from lavie.stages import Given, PixelVideo, VideoShape
from lavie.stages.given_frames import GivenFramesSpec
from lavie.video import write_video

ROOT = Path(__file__).parents[1]
INTERPOLATION = (
    "video.num_frames=5",
    "source={type: given_frames, every: 2, fill: nearest, mask: false, patterns: [all]}",
    "denoiser.conditioners=[{type: concat, name: frames, channels: 4}]",
)
UPSCALING = (
    "video.height=32",
    "video.width=32",
    "source={type: low_res, factor: 2, noise_level: 20, schedule: {type: scaled_linear}}",
    "denoiser.conditioners=[{type: concat, name: low_res, channels: 3},"
    " {type: noise_level, num_levels: 1000, max_level: 350}]",
)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return what imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def clip(motion: str, num_frames: int = 17, side: int = 32) -> Tensor:
    dataset = ShapesSpec(split="seen", num_frames=num_frames, height=side, width=side).build()
    return next(each.video for each in map(dataset.clip, range(100)) if each.labels["motion"] == motion)


def given(video: Tensor) -> tuple[Given, VideoShape]:
    """Give every fourth frame."""
    source = GivenFramesSpec(every=4, mask=False, fill="nearest").build()
    shape = VideoShape(num_frames=video.shape[1], height=video.shape[2], width=video.shape[3])
    return source.given(video[None], 24.0)[0], shape


def baseline(module: Callable[[str], ModuleType], name: str) -> Callable[[Given, VideoShape], Tensor]:
    if name == "dis":
        pytest.importorskip("cv2", reason="OpenCV is not installed")
    baselines = module("baselines")
    return {**baselines.INTERPOLATION, **baselines.UPSCALING}[name]


@pytest.mark.parametrize("name", ["repetition", "blend", "dis"])
def test_given_frames_are_kept_and_what_stands_still_stands(name: str, module: Callable[[str], ModuleType]) -> None:
    video = clip("right")
    made = baseline(module, name)(*given(video))
    torch.testing.assert_close(made[:, ::4], video[:, ::4])
    still = video[:, :1].expand(-1, 9, -1, -1)
    torch.testing.assert_close(baseline(module, name)(*given(still)), still)


def test_repetition_shows_the_nearest_frame_and_the_earlier_of_two(module: Callable[[str], ModuleType]) -> None:
    ramp = torch.linspace(-1, 1, 9).view(1, 9, 1, 1).expand(3, 9, 8, 8)
    made = baseline(module, "repetition")(*given(ramp))
    assert [round(each * 4 + 4) for each in made[0, :, 0, 0].tolist()] == [0, 0, 0, 4, 4, 4, 4, 8, 8]


def test_blending_is_right_where_brightness_changes_evenly(module: Callable[[str], ModuleType]) -> None:
    ramp = torch.linspace(-1, 1, 9).view(1, 9, 1, 1).expand(3, 9, 8, 8)
    torch.testing.assert_close(baseline(module, "blend")(*given(ramp)), ramp)


@pytest.mark.parametrize("motion", ["right", "up", "circling"])
def test_flow_follows_what_moves(motion: str, module: Callable[[str], ModuleType]) -> None:
    video = clip(motion, num_frames=61, side=64)
    faded, moved = (baseline(module, name)(*given(video)) for name in ("blend", "dis"))
    assert psnr(moved[None], video[None]) > psnr(faded[None], video[None]) + 3


def test_the_method_that_needs_opencv_is_refused_without_it(
    module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    baselines = module("baselines")
    monkeypatch.setattr(baselines, "find_spec", lambda name: None)
    with pytest.raises(baselines.MissingError, match="pip install opencv-python-headless, or leave the method out"):
        baselines.check_installed("dis")
    baselines.check_installed("blend")


@pytest.mark.parametrize("name", ["bicubic", "lanczos"])
def test_enlarging_keeps_even_colours_and_smooth_shades(name: str, module: Callable[[str], ModuleType]) -> None:
    make = baseline(module, name)
    shape = VideoShape(num_frames=2, height=32, width=48)
    even = torch.tensor([-1.0, 0.25, 1.0]).view(3, 1, 1, 1).expand(3, 2, 8, 12)
    made = make(Given(PixelVideo(even[None], 8.0)), shape)
    torch.testing.assert_close(made, even[:, :, :1, :1].expand(3, 2, 32, 48))
    fine = torch.linspace(-0.8, 0.8, 48).expand(3, 2, 32, 48)
    small = fine.unflatten(3, (12, 4)).mean(4)[:, :, ::4]
    inside = make(Given(PixelVideo(small[None], 8.0)), shape)[..., 12:36]
    torch.testing.assert_close(inside, fine[..., 12:36], atol=0.02, rtol=0)


def test_only_frames_that_were_not_given_count(module: Callable[[str], ModuleType]) -> None:
    comparing, video = module("comparing"), clip("left")
    task = comparing.Task(video, *given(video), "", 0)

    def wrong_where_given(task: Any) -> Tensor:
        made = video.clone()
        made[:, ::4] = 0
        return made

    def wrong_between(task: Any) -> Tensor:
        made = video.clone()
        made[:, 1::4] += 0.2
        return made

    watch = module("measuring").Stopwatch(torch.device("cpu"))
    _, measures = comparing.make(task, {"given": wrong_where_given, "between": wrong_between}, watch)
    assert measures["given"]["psnr"] == comparing.MAX_PSNR
    assert measures["given"]["ssim"] == pytest.approx(1)
    assert measures["given"]["flicker"] > 1
    assert measures["between"]["psnr"] == pytest.approx(10 * np.log10(4 / (0.2**2 / 3)), rel=1e-4)


def test_clips_are_of_combinations_that_were_not_trained_on(module: Callable[[str], ModuleType]) -> None:
    held_out, shape = module("held_out"), VideoShape(num_frames=4, height=16, width=16)
    trained = set(ShapesSpec(split="train", num_frames=4).build().combinations)
    for split in ("triples", "pairs"):
        for sample in held_out.shapes(shape, split, 8):
            labels = sample.clip.labels
            assert (labels["colour"], labels["shape"], labels["motion"]) not in trained
            assert sample.clip.video.shape == (3, 4, 16, 16)
            assert sample.label == labels["motion"]


def test_files_give_their_beginning_and_their_end_from_the_middle_of_the_picture(
    module: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    frames = np.zeros((10, 32, 64, 3), np.uint8)
    frames[:, :, 16:48] = np.arange(10, dtype=np.uint8)[:, None, None, None] * 20 + 40
    write_video(tmp_path / "film.mp4", frames, 12)
    write_video(tmp_path / "short.mp4", frames[:3], 12)
    shape = VideoShape(num_frames=4, height=16, width=16)
    samples = module("held_out").files(shape, [tmp_path / "film.mp4", tmp_path / "short.mp4"])
    found = [((each.clip.video[0].mean(dim=(1, 2)) + 1) * 127.5).tolist() for each in samples]
    expected = [[40, 60, 80, 100], [160, 180, 200, 220], [40, 60, 80]]
    assert [pytest.approx(each, abs=4) for each in expected] == found
    assert [each.name for each in samples] == ["film.mp4 0", "film.mp4 6", "short.mp4 0"]


def test_the_tables_give_medians_quartiles_and_who_is_nearer(module: Callable[[str], ModuleType]) -> None:
    comparing, report = module("comparing"), module("comparison_report")
    figures = {"ssim": 0.5, "flicker": 1.0, "seconds": 2.0, "cpu_seconds": 1.5}
    results = []
    for label, theirs in (("left", 20.0), ("left", 24.0), ("up", 40.0)):
        methods = {"ours": {"psnr": 30.0, **figures}, "blend": {"psnr": theirs, **figures}}
        results.append(asdict(comparing.Result("triples", label, "", "", (5, 16, 16), methods)))
    text = report.tables(results, "ours")
    assert "### triples: 3 clips of 5×16×16" in text
    assert "| blend | 24.0 [22.0–32.0] | 0.500 [0.500–0.500] | 1.00 [1.00–1.00] | 1 of 3 | 1.5 |" in text
    assert "| median PSNR, dB (clips) | left (2) | up (1) |" in text
    assert "| blend | 22.0 | 40.0 |" in text


def command(folder: Path, changes: tuple[str, ...], *options: str) -> list[str]:
    """Return a command line for a small stage with weights drawn at random."""
    weights = small_weights(folder, *changes)
    changed = [word for change in changes for word in ("--set", change)]
    return [str(folder / "small.yaml"), "--weights", str(weights), *changed, "--device", "cpu", *options]


@pytest.mark.parametrize(
    ("changes", "methods"),
    [(INTERPOLATION, ["repetition", "blend"]), (UPSCALING, ["bicubic", "lanczos"])],
    ids=["interpolation", "upscaling"],
)
def test_one_command_writes_figures_tables_and_pictures(
    changes: tuple[str, ...],
    methods: list[str],
    module: Callable[[str], ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_video(tmp_path / "film.mp4", np.zeros((5, 48, 64, 3), np.uint8), 12)
    line = command(tmp_path, changes, "--clips", "2", "--video", str(tmp_path / "film.mp4"), "--methods", *methods)
    runs = []
    from_weights = [word for word in line[1:] if word != "--set" and word not in changes]
    for name, arguments in (("out", line), ("again", from_weights)):
        assert module("compare").main([*arguments, "--out", str(tmp_path / name)]) == 0
        runs.append(json.loads((tmp_path / name / "results.json").read_text()))
    first, second = runs
    assert first["spec"] == second["spec"]
    assert len({each["name"] for each in first["results"]}) == len(first["results"]) >= 3
    for one, other in zip(first["results"], second["results"], strict=True):
        assert list(one["methods"]) == ["ours", "autoencoder", *methods]
        for key in ("psnr", "ssim", "flicker"):
            assert one["methods"]["ours"][key] == other["methods"]["ours"][key]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("results.json", "results.md", "triples.png", "files.png")
    }
    printed = capsys.readouterr()
    assert (tmp_path / "out" / "results.md").read_text().strip() in printed.out
    assert "3/3" in printed.err or "4/4" in printed.err


def test_what_is_given_can_go_through_an_autoencoder_first(module: Callable[[str], ModuleType], tmp_path: Path) -> None:
    comparing, held_out = module("comparing"), module("held_out")
    stage = small_spec(tmp_path, *INTERPOLATION).build().eval()
    samples = list(held_out.shapes(stage.spec.video, "triples", 1))
    seen: list[Tensor] = []

    def look(task: Any) -> Tensor:
        seen.append(task.given.video.video()[0])
        return task.truth

    for before in (None, stage.autoencoder):
        list(comparing.compare(stage, samples, {"look": look}, comparing.Options(before=before)))
    torch.testing.assert_close(seen[0], samples[0].clip.video[:, ::2])
    video = seen[0][None]
    with torch.inference_mode():
        expected = stage.autoencoder.decode(stage.autoencoder.encode(video)).clamp(-1, 1)
    torch.testing.assert_close(seen[1], expected[0])


def test_what_makes_no_sense_is_refused(
    module: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = module("compare").main
    write_video(tmp_path / "thumb.mp4", np.zeros((5, 8, 8, 3), np.uint8), 12)
    line = command(tmp_path, INTERPOLATION, "--methods", "blend", "--out", str(tmp_path / "out"))
    refused = {
        "only stages that put frames between given ones": ["base-tiny"],
        "--methods: no bicubic; there are repetition, blend, dis": [*line, "--methods", "bicubic"],
        "nothing to compare on": [*line, "--clips", "0"],
        "thumb.mp4: 8×8 pixels, but the comparison needs 16×16": [*line, "--video", str(tmp_path / "thumb.mp4")],
        "comes without weights": ["interpolation"],
    }
    for reason, arguments in refused.items():
        assert main(arguments) == 2
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
