"""Given frames, formats, and cascades as `lavie generate` takes them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_cascade import cascade_weights
from small_given import given_weights

from lavie.cli.app import run
from lavie.cli.progress import Display
from lavie.generation.record import read_record
from lavie.video import read_video

Generate = Callable[..., tuple[int, list[Path], str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds specs and weights of a small cascade, and of models that start from frames."""
    folder = tmp_path_factory.mktemp("models")
    cascade_weights(folder)
    given_weights(folder)
    return folder


@pytest.fixture
def generate(models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Generate:
    """Run the verb with one of the models; return exit code, paths, and stderr."""

    def call(model: str, *tokens: str) -> tuple[int, list[Path], str]:
        weights = models / ("weights" if model == "cascade" else model)
        where = ["--spec", models / f"{model}.yaml", "--weights", weights, "--output-dir", tmp_path / "out"]
        code = run(["generate", *map(str, where), "--device", "cpu", *tokens])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, [Path(line) for line in out.splitlines()], err

    return call


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 16, 3), np.uint8)).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.mark.parametrize("format", ["mp4", "webm", "gif", "png"])
def test_every_format_is_written_read_and_taken_up_again(generate: Generate, format: str) -> None:
    code, (path,), _ = generate("small", "a star", "--format", format)
    assert code == 0
    assert path.suffix == (".frames" if format == "png" else f".{format}")
    assert read_video(path).frames.shape == (3, 16, 16, 3)
    assert read_record(path).recipe.prompt == "a star"
    code, again, err = generate("small", "a star", "--format", format)
    assert (code, again) == (0, [path])
    assert "1 of 1 videos are already there" in err


def test_a_contact_sheet_shows_old_and_new_videos_of_every_format(generate: Generate) -> None:
    for format in ("mp4", "webm", "gif", "png"):
        generate("small", "a star", "--format", format)
        code, paths, err = generate("small", "a star", "a red star", "--format", format, "--contact-sheet")
        assert code == 0
        assert len(paths) == 3
        assert "1 of 2 videos are already there" in err


def test_frames_go_in_by_every_option_and_never_get_mixed_up(generate: Generate, picture: str) -> None:
    _, (clip,), _ = generate("small", "a star", "--format", "png")
    names = set()
    for options in (
        ["--image", picture],
        ["--last-frame", picture],
        ["--first-frame", picture, "--last-frame", picture],
        ["--video", str(clip)],
        [],
    ):
        code, (path,), err = generate("first", "a star", *options)
        assert code == 0
        assert read_video(path).frames.shape == (6, 16, 16, 3)
        assert ("cropped and resized to 16×16" in err) == (picture in options)
        names.add(path.name)
    assert len(names) == 5


def test_a_given_frame_needs_no_prompt(generate: Generate, picture: str) -> None:
    code, (path,), err = generate("first", "--image", picture)
    assert code == 0
    assert read_record(path).recipe.prompt == ""
    assert "empty prompt" not in err


def test_videos_are_interpolated_and_enlarged(generate: Generate) -> None:
    _, (clip,), _ = generate("small", "a star", "--fps", "12")
    code, (between,), err = generate("between", "a star", "--video", str(clip))
    assert (code, read_video(between).frames.shape) == (0, (5, 16, 16, 3))
    assert "--fps 24 keeps it" in err
    code, (large,), _ = generate("larger", "a star", "--video", str(clip), "--num-frames", "2")
    assert (code, read_video(large).frames.shape, read_video(large).fps) == (0, (2, 32, 32, 3), 12)
    code, (slow,), _ = generate("larger", "a star", "--video", str(clip), "--fps", "3")
    assert (code, read_video(slow).fps) == (0, 3)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("small", ["--image", "{picture}"], "--first-frame (--image): small starts from text alone"),
        ("cascade", ["--video", "{picture}"], "--video: cascade starts from text alone"),
        ("between", [], "--video: between makes videos from videos; give it one"),
        ("first", ["--image", "none.png"], "none.png: no such file"),
        ("first", ["--video", "{picture}", "--last-frame", "{picture}"], "--last-frame, --video: a video is given"),
        ("first", ["--video", "{text}"], "text.mp4: cannot be read"),
        ("first", ["--image", "{text}"], "text.mp4: no picture that can be read"),
        ("first", ["--image", "{picture}", "--last-frame", "{picture}", "--num-frames", "1"], "at least 2 frames"),
        ("cascade", ["--steps", "0"], "--steps: must be greater than or equal to 1"),
        ("cascade", ["--sampler", "dmd"], "--sampler: unknown sampler 'dmd'"),
        ("cascade", ["--fps", "0"], "--fps: must be greater than 0"),
        ("cascade", ["--fps", "60", "--format", "gif"], "60 frames per second; must be above 0 and at most 50"),
        (
            "cascade",
            ["--num-frames", "4096", "--height", "8192", "--width", "8192"],
            "--num-frames, --height, --width: ",
        ),
    ],
)
def test_mistakes_are_named_with_their_option_and_nothing_is_made(
    generate: Generate, tmp_path: Path, picture: str, model: str, options: list[str], message: str
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    names = {"picture": picture, "text": tmp_path / "text.mp4"}
    code, paths, err = generate(model, "a star", *(option.format(**names) for option in options))
    assert (code, paths) == (2, [])
    assert message in err
    assert not (tmp_path / "out").exists()


def test_options_act_on_the_first_stage_of_a_cascade_and_the_rate_on_the_file(generate: Generate) -> None:
    options = ["--steps", "1", "--guidance-scale", "3", "--num-frames", "2", "--fps", "24"]
    code, (path,), _ = generate("cascade", "a star", *options, "--set", "upscaling.sampler.num_inference_steps=1")
    spec = read_record(path).spec
    assert code == 0
    assert (spec["base"]["sampler"]["num_inference_steps"], spec["base"]["guidance"]["scale"]) == (1, 3)
    assert spec["interpolation"]["sampler"]["num_inference_steps"] == 2
    assert (read_video(path).frames.shape, read_video(path).fps) == ((3, 32, 32, 3), 24)


def test_a_cascade_that_is_interrupted_goes_on_behind_its_last_stage(
    generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(display: Display, stage: str, step: object) -> None:
        if stage == "upscaling":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Display, "on_step", stop)
        code, paths, err = generate("cascade", "a star")
    assert (code, paths) == (130, [])
    assert "0 of 1 videos are done; the same command makes the rest" in err
    code, (path,), err = generate("cascade", "a star", "--keep-latents")
    assert code == 0
    assert "note: goes on behind the stage interpolation, which an earlier run has finished" in err
    assert sorted(os.listdir(tmp_path / "out")) == sorted([path.name, f"{path.name}.json", f"{path.stem}.latents"])


def test_want_of_memory_is_told_with_stage_and_remedy(
    generate: Generate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr("lavie.stages.low_res.LowRes.inputs", fail)
        code, paths, err = generate("cascade", "a star")
    assert (code, paths) == (1, [])
    assert "out of memory on cpu while sampling in the stage upscaling: ask for fewer frames" in err
    assert err.endswith("--set upscaling.coverage=windows\n0 of 1 videos are done\n")
    with monkeypatch.context() as patch:
        patch.setattr("lavie.blocks.autoencoder.AutoencoderKL.decode", fail)
        code, _, err = generate("small", "a star")
    assert code == 1
    assert "while decoding: ask for a smaller size, or decode frames in tiles: --set autoencoder.tile=256" in err
    with monkeypatch.context() as patch:
        patch.setattr("lavie.generation.model.load_stage", fail)
        code, _, err = generate("small", "a red star")
    assert code == 1
    assert "out of memory on cpu while loading the weights: --dtype bfloat16 halves" in err
