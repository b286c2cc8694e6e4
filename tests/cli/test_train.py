"""`lavie train`: a recipe in, weights out, whatever happens in between."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_model import SPEC
from torch import Tensor

from lavie.cli.app import run
from lavie.training.autoencoder import AutoencoderPhase

RECIPE = """
type: train
model: {extends: small.yaml}
checkpoints: {every: 3, keep: 2}
phases:
  - type: autoencoder
    name: autoencoder
    data: {type: shapes, num_frames: 1, height: 16, width: 16}
    num_steps: 2
    batch_size: 1
    evaluation: {num_clips: 1}
  - type: denoiser
    name: joint
    clips: {type: shapes, num_frames: 3, height: 16, width: 16}
    images: {type: shapes, num_frames: 1, height: 16, width: 16}
    clips_per_step: 1
    images_per_clip: 1
    num_steps: 30
    train_text_encoder: true
    evaluation: {every: 1000, num_clips: 1}
"""
MAIN = "import sys; from lavie.cli.app import main; main()"
Train = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SPEC)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


@pytest.fixture
def train(recipe: Path, capfd: pytest.CaptureFixture[str]) -> Train:
    """Run the verb on one thread; return exit code, stdout and stderr."""

    def call(*tokens: str) -> tuple[int, str, str]:
        code = run(["train", str(recipe), "--device", "cpu", "--threads", "1", *tokens])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def started(recipe: Path, folder: Path) -> subprocess.Popen[str]:
    """Start a run of its own and wait until it has saved a step of the second phase."""
    options = ["--output-dir", str(folder), "--device", "cpu", "--threads", "1"]
    command = [sys.executable, "-c", MAIN, "train", str(recipe), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(30_000):
        if list(folder.glob("checkpoints/step-0000000[5-9]*")) or process.poll() is not None:
            return process
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"no checkpoint in five minutes: {process.communicate()[1]}")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_file(folder / "weights" / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    assert [name for name in first if not first[name].equal(second[name])] == []


def test_a_killed_run_goes_on_to_the_same_weights(recipe: Path, train: Train, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with started(recipe, killed) as process:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "report.json").exists()
    code, out, err = train("--output-dir", str(killed))
    assert (code, out) == (0, f"{killed / 'weights'}\n")
    assert "resuming from" in err
    assert train("--output-dir", str(whole))[0] == 0
    assert_same_weights(killed, whole)
    assert [path.name for path in (killed / "checkpoints").glob(".partial-*")] == []


def test_a_terminated_run_saves_where_it_is_and_ends_with_143(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with started(recipe, folder) as process:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    newest = sorted(folder.glob("checkpoints/step-*"))[-1]
    assert json.loads((newest / "manifest.json").read_text())["position"]["step"] >= 3


def test_trained_weights_make_videos_and_so_does_a_checkpoint(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train("--output-dir", str(folder), "--set", "phases[1].num_steps=4")[0] == 0
    for weights in (folder / "weights", folder / "checkpoints" / "step-00000005"):
        made = tmp_path / "made" / weights.name
        options = ["--weights", str(weights), "--spec", str(tmp_path / "small.yaml"), "--output-dir", str(made)]
        assert run(["generate", "a star", *options, "--device", "cpu"]) == 0
        assert len(list(made.glob("*.mp4"))) == 1


def test_phases_are_chosen_by_name(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert train("--output-dir", str(folder), "--until-phase", "autoencoder")[0] == 0
    assert [path.name for path in (folder / "checkpoints").glob("step-*")] == ["step-00000002-end"]
    code, _, err = train("--output-dir", str(folder), "--phases", "join")
    assert code == 2
    assert "there is no phase 'join'. The recipe has autoencoder, joint" in err


def test_another_recipe_is_refused_until_the_old_run_is_set_aside(train: Train, tmp_path: Path) -> None:
    options = ["--output-dir", str(tmp_path / "run"), "--until-phase", "autoencoder", "--set", "phases[0].num_steps=1"]
    assert train(*options)[0] == 0
    code, _, err = train(*options, "--set", "seed=1")
    assert code == 2
    assert "seed: was 0 and is now 1" in err
    assert "--fresh" in err
    assert train(*options, "--set", "seed=1", "--fresh")[0] == 0
    assert (tmp_path / "run.old-1" / "weights").is_dir()


def test_a_run_can_start_from_the_weights_of_another(train: Train, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert train("--output-dir", str(first), "--until-phase", "autoencoder")[0] == 0
    weights = ["--init-weights", str(first / "weights"), "--init-parts", "autoencoder"]
    assert train("--output-dir", str(second), *weights, "--phases", "joint", "--set", "phases[1].num_steps=1")[0] == 0
    before, after = (load_file(folder / "weights" / "model.safetensors") for folder in (first, second))
    same = {name.split(".")[0] for name in before if before[name].equal(after[name])}
    assert same >= {"autoencoder"}
    assert all(before[name].equal(after[name]) for name in before if name.startswith("autoencoder."))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--device", "tpu"], "device"),
        (["--set", "phases[0].num_stesp=3"], "num_steps"),
        (["--set", "phases[0].num_steps=-3"], "phases[0].num_steps"),
        (["--init-weights", "/nowhere"], "/nowhere has no manifest.json"),
        (["--init-parts", "denoiser"], "--init-weights"),
        (["--threads", "0"], "threads"),
    ],
)
def test_mistakes_end_with_2_and_name_the_place(train: Train, tmp_path: Path, tokens: list[str], message: str) -> None:
    code, _, err = train("--output-dir", str(tmp_path / "run"), *tokens)
    assert code == 2
    assert message in err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_diverging_run_ends_with_1_and_advice(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(self: AutoencoderPhase, batches: object, draws: object) -> dict[str, Tensor]:
        return {"loss": torch.tensor(float("nan"))}

    monkeypatch.setattr(AutoencoderPhase, "losses", losses)
    code, _, err = train("--output-dir", str(tmp_path / "run"))
    assert code == 1
    assert "autoencoder step 0: the loss is nan" in err


class Terminal(io.StringIO):
    """A stderr that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_tells_phase_step_loss_rate_and_time(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    assert train("--output-dir", str(tmp_path / "run"), "--until-phase", "autoencoder")[0] == 0
    for text in ("autoencoder", "2/2", "loss", "it/s", "0:00:0"):
        assert text in terminal.getvalue()


def test_two_runs_do_not_share_a_folder(recipe: Path, train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with started(recipe, folder) as process:
        os.kill(process.pid, signal.SIGSTOP)
        try:
            code, _, err = train("--output-dir", str(folder))
            fresh = train("--output-dir", str(folder), "--fresh")[0]
        finally:
            process.kill()
        process.communicate(timeout=300)
    assert code == fresh == 2
    assert f"process {process.pid} is training there" in err
