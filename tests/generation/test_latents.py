"""A run that dies goes on behind the last finished stage, and the video is the same byte for byte."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_cascade import cascade_weights

from lavie.generation.choice import choose_model
from lavie.generation.latents import Latents
from lavie.generation.model import Model
from lavie.generation.outputs import Outputs, Watch, plan, run
from lavie.generation.record import Recipe, read_record
from lavie.samplers.base import Step
from lavie.stages import Request, Stage
from lavie.video import Picture, read_video

STAGES = ["base", "interpolation", "upscaling"]
RECIPE = Recipe(prompt="a star", spec_hash="0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cascade")
    cascade_weights(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return choose_model(folder / "cascade.yaml", weights=folder / "weights", device="cpu")


@pytest.fixture(scope="module")
def stage(model: Model) -> Stage:
    return model.load()


class Watcher:
    """Writes down which stages made steps, and what was noted; ends the run where it is told to."""

    def __init__(self, end: str = "") -> None:
        self.end = end
        self.stages: list[str] = []
        self.notes: list[str] = []

    def watch(self) -> Watch:
        return Watch(self.on_step, self.on_frame, self.notes.append)

    def on_step(self, stage: str, step: Step) -> None:
        self.stages.append(stage)
        if stage == self.end:
            raise KeyboardInterrupt

    def on_frame(self, number: int, picture: Picture) -> None:
        if self.end == "writing":
            raise KeyboardInterrupt


def make(model: Model, stage: Stage, outputs: Outputs, watcher: Watcher) -> Path:
    outputs.prepare()
    (job,) = run(plan([Request("a red star", seed=3)], model, outputs), model, stage, outputs, watcher.watch())
    return job.path


def hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("end", "kept"), [("base", 0), ("interpolation", 1), ("upscaling", 2), ("writing", 3)], ids=[*STAGES, "writing"]
)
def test_a_run_ended_in_any_stage_goes_on_there_and_gives_the_same_bytes(
    model: Model, stage: Stage, tmp_path: Path, end: str, kept: int
) -> None:
    whole = make(model, stage, Outputs(tmp_path / "whole"), Watcher())
    outputs = Outputs(tmp_path / "ended")
    with pytest.raises(KeyboardInterrupt):
        make(model, stage, outputs, Watcher(end))
    again = Watcher()
    path = make(model, stage, outputs, again)
    assert sorted(set(again.stages)) == STAGES[kept:]
    assert again.notes == [
        f"note: goes on behind the stage {name}, which an earlier run has finished" for name in STAGES[:kept]
    ]
    assert path.read_bytes() == whole.read_bytes()
    assert read_record(path).recipe == read_record(whole).recipe
    assert not hidden(tmp_path / "ended")


KILLED = """
import os, signal, sys
from pathlib import Path
from lavie.generation.choice import choose_model
from lavie.generation.outputs import Outputs, Watch, plan, run
from lavie.stages import Request

def on_step(stage, step):
    if stage == "upscaling":
        os.kill(os.getpid(), signal.SIGKILL)

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
model = choose_model(folder / "cascade.yaml", weights=folder / "weights", device="cpu")
outputs = Outputs(out)
outputs.prepare()
list(run(plan([Request("a red star", seed=3)], model, outputs), model, model.load(), outputs, Watch(on_step)))
"""


def test_a_process_that_is_killed_between_stages_loses_the_stage_under_way_alone(
    folder: Path, model: Model, stage: Stage, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "killed")]
    assert subprocess.run(command, capture_output=True, timeout=600).returncode == -signal.SIGKILL
    again = Watcher()
    path = make(model, stage, Outputs(tmp_path / "killed"), again)
    assert set(again.stages) == {"upscaling"}
    whole = make(model, stage, Outputs(tmp_path / "whole"), Watcher())
    assert path.read_bytes() == whole.read_bytes()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def from_elsewhere(path: Path) -> None:
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest["environment"]["torch"] = "0.1"
    (path.parent / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (flip, "is damaged or was changed; made anew"),
        (lambda path: path.write_bytes(b""), "it is damaged; made anew"),
        (lambda path: path.unlink(), "is missing; made anew"),
        (lambda path: (path.parent / "manifest.json").write_text("{"), "cannot be read"),
        (lambda path: (path.parent / "manifest.json").unlink(), "made anew"),
        (from_elsewhere, "was made in another way or on another machine; made anew"),
    ],
    ids=["a flipped bit", "empty", "no tensors", "half a manifest", "no manifest", "from elsewhere"],
)
def test_damaged_latents_are_noted_and_made_anew(
    model: Model, stage: Stage, tmp_path: Path, damage: Callable[[Path], None], note: str
) -> None:
    whole = make(model, stage, Outputs(tmp_path / "whole"), Watcher())
    with pytest.raises(KeyboardInterrupt):
        make(model, stage, Outputs(tmp_path), Watcher("interpolation"))
    (latent,) = tmp_path.glob(".latents-*/base/*.safetensors")
    damage(latent)
    again = Watcher()
    path = make(model, stage, Outputs(tmp_path), again)
    assert sorted(set(again.stages)) == STAGES
    assert len(again.notes) == 1
    assert note in again.notes[0]
    assert path.read_bytes() == whole.read_bytes()


def test_latents_that_are_kept_save_the_work_for_another_format(model: Model, stage: Stage, tmp_path: Path) -> None:
    path = make(model, stage, Outputs(tmp_path, keep_latents=True), Watcher())
    assert sorted(each.name for each in path.with_suffix(".latents").iterdir()) == STAGES
    again, anew = Watcher(), Watcher()
    gif = make(model, stage, Outputs(tmp_path, "gif"), again)
    assert len(read_video(gif).frames) == 5
    assert again.stages == []
    assert path.with_suffix(".latents").exists()
    make(model, stage, Outputs(tmp_path, "gif", overwrite=True, keep_latents=True), anew)
    assert sorted(set(anew.stages)) == STAGES
    assert not hidden(tmp_path)


def test_another_recipe_finds_no_latents(tmp_path: Path) -> None:
    first = Latents(RECIPE, {}, tmp_path)
    first.keep("base", lambda: torch.ones(1, 4, 2, 3, 3))
    for change in ({"seed": 1}, {"given": "ab"}, {"weights_sha256": "cd"}, {"negative_prompt": ""}, {"dtype": "x"}):
        other = Latents(RECIPE.model_copy(update=change), {}, tmp_path)
        assert not other.keep("base", lambda: torch.zeros(1, 4, 2, 3, 3)).any()
        other.remove()
    larger = Latents(RECIPE.model_copy(update={"scale": 4}), {}, tmp_path)
    assert larger.keep("base", lambda: torch.zeros(1, 4, 2, 3, 3)).all()


def test_a_disk_that_takes_no_latents_does_not_end_the_run(tmp_path: Path) -> None:
    notes: list[str] = []
    (tmp_path / "file").write_text("")
    latents = Latents(RECIPE, {}, tmp_path / "file", on_note=notes.append)
    assert latents.keep("base", lambda: torch.ones(1, 4, 2, 3, 3)).all()
    assert "the latents of the stage base are not kept" in notes[0]
    latents.remove()
    assert os.listdir(tmp_path) == ["file"]
