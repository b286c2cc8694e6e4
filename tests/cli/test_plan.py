"""`lavie plan` says what a video needs; --max-memory keeps to it, and the record tells."""

from pathlib import Path

import numpy as np
import pytest
from small_cascade import write_cascade
from small_model import small_spec

from lavie.cli.app import run
from lavie.generation.record import read_record
from lavie.video import write_video
from lavie.weights.stored import save_stage


@pytest.fixture
def spec(tmp_path: Path) -> str:
    small_spec(tmp_path)
    return str(tmp_path / "small.yaml")


def test_a_plan_tells_weights_memory_and_time_of_every_stage(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", spec, "--device", "cpu", "--num-frames", "4"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert "4 frames of 16×16 at 8 fps, float32 on cpu" in lines[0]
    assert [line.split()[0] for line in lines[1:5]] == ["stage", "sampling", "pixels", "whole"]
    assert "Peaks are of the whole process" in lines[5]
    assert err == ""


def test_a_limit_that_is_high_enough_asks_for_nothing(spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", spec, "--device", "cpu", "--max-memory", "500GB"]) == 0
    assert capsys.readouterr().out.endswith("Fits into 500.00 GB as it is.\n")


def test_a_given_video_counts_with_its_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(write_cascade(tmp_path).with_name("larger.yaml"))
    write_video(tmp_path / "given.mp4", np.zeros((5, 16, 16, 3), dtype=np.uint8), 8)
    assert run(["plan", spec, "--device", "cpu", "--video", str(tmp_path / "given.mp4")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{spec}: 5 frames of 32×32 at 8 fps")
    assert err == ""


@pytest.mark.parametrize("verb", [["plan"], ["generate", "a star", "--spec"]])
@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("10MB", "--max-memory: 10 MB are too little for sampling and pixels, whatever is given up; the smallest"),
        ("12", "--max-memory: '12' is no size; write one such as 12GB, 1.5GiB or 500MB"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str], limit: str, message: str
) -> None:
    loaded = small_spec(tmp_path)
    weights = tmp_path / "weights"
    save_stage(loaded.build().networks(), loaded, weights)
    assert run([*verb, spec, "--weights", str(weights), "--device", "cpu", "--max-memory", limit]) == 2
    out, err = capsys.readouterr()
    assert (out, message in err) == ("", True)


def test_generate_runs_under_its_plan_and_records_it(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = small_spec(tmp_path)
    save_stage(loaded.build().networks(), loaded, tmp_path / "weights")
    fixed = ["generate", "a star", "--spec", spec, "--weights", tmp_path / "weights", "--device", "cpu"]
    options = ["--max-memory", "500GB", "--in-turn", "--output-dir", tmp_path / "out"]
    assert run([str(token) for token in [*fixed, *options]]) == 0
    out, err = capsys.readouterr()
    (told,) = read_record(Path(out.strip())).memory
    assert told.startswith("planned for 500.00 GB, with a peak of about ")
    assert told.endswith(": --in-turn")
    assert f"note: {told}" in err
