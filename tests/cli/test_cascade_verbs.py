"""Cascades on the command line: checked, drawn, and run with a folder of weights for every stage."""

import shutil
from pathlib import Path

import pytest
from small_cascade import cascade_weights, write_cascade

from lavie.cli.app import run
from lavie.generation.record import read_record
from lavie.video import read_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds cascade.yaml and its weights."""
    folder = tmp_path_factory.mktemp("cascade")
    cascade_weights(folder)
    return folder


def generate(folder: Path, output: Path, *options: str) -> int:
    fixed = ["--spec", folder / "cascade.yaml", "--weights", folder / "weights", "--output-dir", output]
    return run(["generate", "a red star", *map(str, fixed), "--device", "cpu", *options])


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ([], (5, 32, 32, 3)),
        (["--set", "interpolation=null"], (3, 32, 32, 3)),
        (["--set", "upscaling=null"], (5, 16, 16, 3)),
        (["--num-frames", "2", "--height", "20"], (3, 40, 32, 3)),
        (["--set", "handover=mp4"], (5, 32, 32, 3)),
    ],
)
def test_a_cascade_makes_what_its_stages_make_of_each_other(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], shape: tuple[int, ...]
) -> None:
    assert generate(folder, tmp_path, *options) == 0
    path = Path(capfd.readouterr().out.strip())
    assert read_video(path).frames.shape == shape
    assert read_record(path).spec["type"] == "cascade"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "interpolaton=null"], "interpolaton: unknown key. Did you mean 'interpolation'?"),
        (["--set", "upscaling.source.factor=4"], "upscaling.source.factor: the video grows by 4"),
        (["--set", "interpolation.source=null"], "interpolation.denoiser.conditioners: the network reads 'frames'"),
        (["--width", "15"], "--width: 15 is no multiple of the autoencoder's factor 2"),
    ],
)
def test_what_does_not_fit_is_told_with_its_stage_and_nothing_is_made(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert generate(folder, tmp_path / "out", *options) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_stage_without_a_folder_of_weights_is_named(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_cascade(tmp_path)
    shutil.copytree(folder / "weights", tmp_path / "weights")
    (tmp_path / "weights" / "upscaling").rename(tmp_path / "weights" / "upscalin")
    assert generate(tmp_path, tmp_path / "out") == 2
    assert "weights/upscaling has no manifest.json" in capfd.readouterr().err
    assert generate(tmp_path, tmp_path / "out", "--set", "upscaling=null") == 0


def test_without_weights_the_stages_that_have_none_are_named(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "a red star", "--spec", str(folder / "cascade.yaml"), "--output-dir", str(tmp_path)]) == 2
    message = "the spec 'cascade' comes without weights for its base, interpolation, upscaling; name a folder"
    assert message in capfd.readouterr().err


def test_the_modules_of_every_stage_are_drawn_with_their_shapes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", str(folder / "cascade.yaml"), "--depth", "2"]) == 0
    out = capsys.readouterr().out
    for latent in ("1×4×3×8×8", "1×4×5×8×8", "1×4×3×16×16"):
        assert latent in out
    for stage in ("base: LatentDiffusion", "interpolation: LatentDiffusion", "upscaling: LatentDiffusion"):
        assert stage in out


def test_check_tells_of_every_stage(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(folder / "cascade.yaml")]) == 0
    assert ": ok (stage cascade, " in capsys.readouterr().out
    assert run(["check", str(folder / "cascade.yaml"), "--set", "base.video.width=15"]) == 2
    assert "base.video.width: 15 is no multiple of the autoencoder's factor 2" in capsys.readouterr().err
