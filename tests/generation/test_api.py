"""From Python it takes three lines, and the result is that of the command line."""

import logging
import re
import shlex
from pathlib import Path

import pytest
from small_model import small_spec, small_weights

from lavie.cli.app import run
from lavie.errors import PromptError, SpecError, VideoError
from lavie.generation.api import generate
from lavie.generation.record import read_record
from lavie.video import read_video

DOCS = Path(__file__).parents[2] / "docs" / "generating.md"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_weights(tmp_path_factory.mktemp("small"))


def test_a_prompt_becomes_a_video_with_a_record(weights: Path, tmp_path: Path) -> None:
    video = generate(" a  red star ", seed=5, weights=weights, device="cpu", overrides=["video.num_frames=4"])
    assert video.video.shape == (3, 4, 16, 16)
    assert float(video.video.abs().max()) <= 1
    assert video.frames().shape == (4, 16, 16, 3)
    path = video.save(tmp_path / "star.mp4", scale=3)
    assert read_video(path).frames.shape == (4, 48, 48, 3)
    recipe = read_record(path).recipe
    assert (recipe.prompt, recipe.seed, recipe.scale) == ("a red star", 5, 3)


def test_the_command_line_makes_the_same_file(weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--weights", str(weights), "--device", "cpu", "--seed", "5", "--output-dir", str(tmp_path)]
    assert run(["generate", "a red star", *options]) == 0
    made = Path(capfd.readouterr().out.strip())
    video = generate("a red star", seed=5, weights=weights, device="cpu")
    assert video.save(str(tmp_path / "own.mp4")).read_bytes() == made.read_bytes()


def test_a_spec_made_in_python_is_taken(weights: Path, tmp_path: Path) -> None:
    video = generate(
        "a star", spec=small_spec(tmp_path, "sampler.num_inference_steps=1"), weights=weights, device="cpu"
    )
    assert video.record.spec["sampler"]["num_inference_steps"] == 1


def test_what_cannot_be_made_is_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="does not know 'green'"):
        generate("a green star", weights=weights, device="cpu")
    with pytest.raises(PromptError, match="negative prompt: control character"):
        generate("a star", negative_prompt="\0", weights=weights, device="cpu")
    with pytest.raises(SpecError, match="seed: must be a whole number"):
        generate("a star", seed=-1, weights=weights, device="cpu")
    video = generate("a star", weights=weights, device="cpu")
    for scale in (0, 65):
        with pytest.raises(VideoError, match=r"scale must be in \[1, 64\]"):
            video.save(tmp_path / "a.mp4", scale=scale)
    with pytest.raises(VideoError, match=r"cannot write \.avi"):
        video.save(tmp_path / "a.avi")
    assert not list(tmp_path.iterdir())


def test_cut_words_are_logged(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "lavie"):
        generate("a red star moving a blue circle", weights=weights, device="cpu")
    assert "cut off: 'circle'" in caplog.text


@pytest.mark.slow
def test_the_examples_in_the_docs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"^```(bash|python)\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for language, text in examples:
        if language == "bash":
            assert run(shlex.split(text)[1:]) == 0
        else:
            exec(text, {})
    assert len(examples) == 4
    assert len(list(tmp_path.glob("*.mp4"))) == 4
    assert len(list(tmp_path.glob("out/*"))) == 9
