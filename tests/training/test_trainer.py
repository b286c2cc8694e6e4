import dataclasses
import json
import os
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lavie.errors import SpecError, WeightsError
from lavie.registry import Registry
from lavie.training import DivergedError, Trainer, TrainingStoppedError, TrainSpec
from lavie.training.denoiser import DenoiserPhase
from lavie.training.journal import Journal
from lavie.training.recipe import choose


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "weights" / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[dict[str, Tensor]], Any]) -> None:
    """Do something to the losses of one step of every denoiser phase."""
    losses = DenoiserPhase.losses

    def changed(self: DenoiserPhase, batches: Any, draws: Any) -> dict[str, Tensor]:
        values = losses(self, batches, draws)
        return (act(values) or values) if draws.step == step else values

    monkeypatch.setattr(DenoiserPhase, "losses", changed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole") / "run"


@pytest.fixture
def uninterrupted(whole: Path, recipe: TrainSpec) -> Path:
    if not whole.exists():
        Trainer(recipe, whole).run()
    return whole


def test_a_run_leaves_weights_report_samples_and_numbers(uninterrupted: Path) -> None:
    assert set(json.loads((uninterrupted / "report.json").read_text())["measured"]) == {
        "autoencoder",
        "text_to_image",
        "joint",
    }
    assert [path.name for path in sorted((uninterrupted / "samples").iterdir())] == [
        "00000003-autoencoder.png",
        "00000006-text_to_image.png",
        "00000007-text_to_image.png",
        "00000010-joint.png",
        "00000011-joint.png",
    ]
    losses = [row["loss"] for row in Journal(uninterrupted / "metrics.jsonl").rows() if "loss" in row]
    assert len(losses) == 3


def test_a_stopped_run_goes_on_to_the_weights_of_an_uninterrupted_one(
    uninterrupted: Path, recipe: TrainSpec, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        for expected in ("step 3 of text_to_image", "step 3 of joint"):
            with pytest.raises(TrainingStoppedError, match=expected) as stopped:
                Trainer(recipe, run_folder).run()
            assert stopped.value.signum == signal.SIGTERM
    Trainer(recipe, run_folder).run()
    assert_same_weights(uninterrupted, run_folder)


def test_losing_the_steps_since_the_last_checkpoint_changes_nothing(
    uninterrupted: Path, recipe: TrainSpec, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: dict[str, Tensor]) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        at_step(patch, 3, die)
        with pytest.raises(RuntimeError, match="power cut"):
            Trainer(recipe, run_folder).run()
    Trainer(recipe, run_folder).run()
    assert_same_weights(uninterrupted, run_folder)
    totals = [row["total"] for row in Journal(run_folder / "metrics.jsonl").rows()]
    assert totals == sorted(totals)


def test_phases_can_be_run_one_command_at_a_time(uninterrupted: Path, recipe: TrainSpec, run_folder: Path) -> None:
    Trainer(recipe, run_folder, until_phase="autoencoder").run()
    Trainer(recipe, run_folder, phases=["text_to_image"]).run()
    Trainer(recipe, run_folder).run()
    assert_same_weights(uninterrupted, run_folder)


def test_a_phase_is_not_left_half_done_by_accident(
    recipe: TrainSpec, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 1, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TrainingStoppedError):
            Trainer(recipe, run_folder).run()
    with pytest.raises(SpecError, match=r"text_to_image is at step 2 of 4(.|\n)*--init-weights"):
        Trainer(recipe, run_folder, phases=["joint"]).run()


def test_a_finished_run_is_not_run_again(uninterrupted: Path, recipe: TrainSpec) -> None:
    before = (uninterrupted / "weights" / "model.safetensors").stat().st_mtime_ns
    Trainer(recipe, uninterrupted).run()
    assert (uninterrupted / "weights" / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_of_another_recipe_is_refused_naming_the_difference(
    uninterrupted: Path, recipe_data: dict[str, Any], registry: Registry
) -> None:
    other = registry.load(TrainSpec, {**recipe_data, "seed": 1})
    with pytest.raises(SpecError, match=r"seed: was 0 and is now 1") as refused:
        Trainer(other, uninterrupted).run()
    assert "--fresh" in str(refused.value)


def test_what_has_not_begun_yet_may_still_change(
    recipe: TrainSpec, recipe_data: dict[str, Any], registry: Registry, run_folder: Path
) -> None:
    Trainer(recipe, run_folder, until_phase="autoencoder").run()
    phases = [recipe_data["phases"][0], {**recipe_data["phases"][1], "num_steps": 1}]
    shorter = registry.load(TrainSpec, {**recipe_data, "phases": phases})
    Trainer(shorter, run_folder).run()
    assert max(row["total"] for row in Journal(run_folder / "metrics.jsonl").rows()) == 4


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_serves(
    recipe: TrainSpec, run_folder: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda _: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(TrainingStoppedError):
            Trainer(recipe, run_folder).run()
    newest = Trainer(recipe, run_folder).checkpoints.newest()
    assert newest is not None
    for name in ("model", "average", "optimizer"):
        file = newest / f"{name}.safetensors"
        intact = file.read_bytes()
        file.write_bytes(intact[:-3] + bytes([intact[-3] ^ 1]) + intact[-2:])
        with pytest.raises(WeightsError, match=rf"{name}.safetensors .*sha256(.|\n)*Delete"):
            Trainer(recipe, run_folder).run()
        file.write_bytes(intact)
    (newest / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="missing"):
        Trainer(recipe, run_folder).run()
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    Trainer(recipe, run_folder).run()
    assert_same_weights(uninterrupted, run_folder)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(
    recipe: TrainSpec, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 3, lambda values: {**values, "loss": values["loss"] * float("nan")})
    with pytest.raises(DivergedError, match=r"text_to_image step 3: the loss is nan.*step-00000005") as diverged:
        Trainer(recipe, run_folder).run()
    assert "learning_rate" in str(diverged.value)
    newest = Trainer(recipe, run_folder).checkpoints.newest()
    assert newest is not None
    assert newest.name == "step-00000005"


def test_only_the_latest_checkpoints_and_the_ends_of_phases_are_kept(uninterrupted: Path) -> None:
    names = sorted(path.name for path in (uninterrupted / "checkpoints").iterdir())
    assert names == [
        "latest",
        "step-00000003-end",
        "step-00000005",
        "step-00000007-end",
        "step-00000009",
        "step-00000011-end",
    ]
    assert (uninterrupted / "checkpoints" / "latest").read_text() == "step-00000011-end\n"


def test_the_autoencoder_rests_while_the_denoiser_learns(uninterrupted: Path) -> None:
    ends = [load_file(path / "model.safetensors") for path in sorted(uninterrupted.glob("checkpoints/*-end"))]
    changed = [
        {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        for before, after in pairwise(ends)
    ]
    assert changed == [{"denoiser", "text_encoder"}, {"denoiser", "text_encoder"}]


def test_temporal_layers_learn_from_clips_only(uninterrupted: Path) -> None:
    ends = [load_file(path / "model.safetensors") for path in sorted(uninterrupted.glob("checkpoints/*-end"))]
    temporal = [name for name in ends[0] if "temporal" in name]
    assert temporal
    moved = [any(not torch.equal(before[name], after[name]) for name in temporal) for before, after in pairwise(ends)]
    assert moved == [False, True]


def test_training_can_start_from_parts_of_given_weights(
    uninterrupted: Path, recipe: TrainSpec, run_folder: Path
) -> None:
    trainer = Trainer(recipe, run_folder)
    trainer.init_from(uninterrupted / "weights", ["autoencoder"])
    given = weights_of(uninterrupted)
    for name, module in trainer.modules.items():
        same = [torch.equal(value, given[f"{name}.{key}"]) for key, value in module.state_dict().items()]
        assert all(same) == (name == "autoencoder")
    with pytest.raises(SpecError, match=r"no part 'unet', only denoiser"):
        trainer.init_from(uninterrupted / "weights", ["unet"])


def test_setting_a_run_aside_keeps_it(recipe: TrainSpec, run_folder: Path) -> None:
    for number in (1, 2):
        run_folder.mkdir()
        (run_folder / "mark").write_text(str(number))
        Trainer(recipe, run_folder).set_aside()
        assert not run_folder.exists()
        assert (run_folder.parent / f"run.old-{number}" / "mark").read_text() == str(number)


def test_the_loss_falls_when_one_batch_is_learned_by_heart(
    recipe_data: dict[str, Any], registry: Registry, run_folder: Path
) -> None:
    world = {"type": "shapes", "num_frames": 1, "height": 16, "width": 16, "num_clips": 2}
    phase = {**recipe_data["phases"][0], "data": world, "num_steps": 100}
    phase |= {"optimizer": {"learning_rate": 0.01, "warmup_steps": 5}, "ema_decay": 0.9}
    recipe = registry.load(TrainSpec, {**recipe_data, "phases": [phase], "checkpoints": {"every": 1000}})
    Trainer(recipe, run_folder).run()
    losses = [row["loss"] for row in Journal(run_folder / "metrics.jsonl").rows() if "loss" in row]
    assert len(losses) == 2
    assert losses[1] < 0.6 * losses[0]


def test_an_unknown_phase_is_refused_naming_those_there_are() -> None:
    with pytest.raises(SpecError, match=r"no phase 'video'\. The recipe has image, joint"):
        choose(["image", "joint"], ["video"], None)


def test_phases_are_chosen_in_the_order_of_the_recipe() -> None:
    assert choose(["a", "b", "c"], [], None) == [0, 1, 2]
    assert choose(["a", "b", "c"], ["c", "a"], None) == [0, 2]
    assert choose(["a", "b", "c"], [], "b") == [0, 1]
    assert choose(["a", "b", "c"], ["c"], "b") == []


def test_batches_keep_their_words_on_the_way_to_a_device(recipe: TrainSpec) -> None:
    from lavie.training.feed import feed

    sources = recipe.build().phases[0].sources()
    batch = next(feed(sources, seed=0, phase="p", first_step=0, num_steps=1, num_workers=0))["frames"]
    moved = batch.to(torch.device("meta"))
    assert moved.video.is_meta
    assert dataclasses.replace(moved, video=batch.video) == batch
