"""The training loop: one for all phases, saved at step boundaries, and the same run whether or not it was cut short."""

import itertools
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavie.blocks.unet import use_channels_last
from lavie.errors import Fault, LavieError, SpecError
from lavie.spec import dump
from lavie.training.alone import alone_in
from lavie.training.checkpoint import (
    Checkpoints,
    Position,
    load_modules,
    load_optimizer,
    position_of,
    verify,
)
from lavie.training.ema import Average
from lavie.training.feed import feed
from lavie.training.interrupts import Interrupts, TrainingStoppedError
from lavie.training.journal import Gauge, Journal
from lavie.training.optimizer import Optimizer, trainable
from lavie.training.phase import Batch, Phase
from lavie.training.progress import PhaseProgress
from lavie.training.randomness import Draws, derived
from lavie.training.recipe import TrainSpec, choose, differences, past
from lavie.weights.files import AVERAGE_FILE, WEIGHTS_FILE, fill, read_manifest, sweep, write_text
from lavie.weights.stored import save_stage
from lavie.weights.transfer import transfer

logger = logging.getLogger(__name__)
STEPS_PER_ROW = 50
"""Steps between rows of metrics.jsonl."""


class DivergedError(LavieError):
    """A loss or gradient that is no longer a number."""


@dataclass
class Work:
    """A phase under way and all that changes while it runs."""

    index: int
    phase: Phase
    first_total: int
    optimizer: Optimizer
    average: Average
    step: int = 0


class Trainer:
    """Runs a recipe in a folder: `checkpoints/`, `samples/`, `metrics.jsonl`, `weights/` and `report.json`."""

    def __init__(
        self,
        spec: TrainSpec,
        folder: Path,
        *,
        device: str = "cpu",
        phases: Sequence[str] = (),
        until_phase: str | None = None,
        components: Mapping[str, str] | None = None,
    ) -> None:
        """Build the networks; `components` names what other packages bring, for the record."""
        self.spec = spec
        self.components = dict(components or {})
        self.folder = folder
        self.device = torch.device(device)
        self.chosen = choose([phase.name for phase in spec.phases], phases, until_phase)
        self.checkpoints = Checkpoints(folder / "checkpoints", spec.checkpoints.keep)
        self.plan = spec.build()
        stage = self.plan.stage.to(self.device).eval()
        self.modules: dict[str, nn.Module] = {
            "denoiser": stage.denoiser,
            "autoencoder": stage.autoencoder,
            "text_encoder": stage.text_encoder,
        }
        for module in self.modules.values():
            use_channels_last(module)
        self.journal = Journal(folder / "metrics.jsonl")

    def set_aside(self) -> None:
        """Rename the folder of an earlier run, so that a new one begins."""
        if self.folder.exists():
            with alone_in(self.folder):
                pass
            aside = next(path for i in itertools.count(1) if not (path := Path(f"{self.folder}.old-{i}")).exists())
            self.folder.rename(aside)
            logger.info("the earlier run is now %s", aside)

    def init_from(self, weights: Path, parts: Sequence[str] = ()) -> None:
        """Start from weights as far as they fit, of all parts or of some; a run that goes on keeps its own instead.

        Raises:
            WeightsError: if they are damaged or do not fit.
        """
        for part in parts:
            if part not in self.modules:
                raise SpecError([Fault("init-parts", f"there is no part {part!r}, only {', '.join(self.modules)}")])
        if self.checkpoints.newest() is None:
            done = transfer({name: self.modules[name] for name in parts or self.modules}, weights)
            logger.info("starting from %s of %s", ", ".join(parts) or "all parts", weights)
            for what, names in (("new", done.fresh), ("widened", done.widened), ("not used", done.unused)):
                if names:
                    logger.info("%s: %d tensors, such as %s", what, len(names), names[0])

    def run(self) -> dict[str, Any]:
        """Go through the chosen phases, from the newest checkpoint on if there is one, and return the report.

        Raises:
            BusyError: if another process is at work in the folder.
            SpecError: if the folder holds a run of another recipe.
            WeightsError: if the newest checkpoint is damaged.
            DivergedError: if loss or gradient stop being numbers; the last checkpoint is kept.
            TrainingStoppedError: after a stop signal, once the run is saved.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with alone_in(self.folder), Interrupts() as interrupts, torch.random.fork_rng(devices):
            sweep(self.folder)
            newest = self.checkpoints.newest()
            done = None if newest is None else self.resume(newest)
            self._check_start(done)
            self.journal.cut(done.total if done else 0)
            for index in self.chosen:
                if done is not None and (index < done.phase or (index == done.phase and done.complete)):
                    continue
                work = self._begin(index)
                if done is not None and newest is not None and index == done.phase:
                    self._continue(work, newest, done)
                self._run_phase(work, interrupts)
            return self._finish()

    def resume(self, newest: Path) -> Position:
        """Load the weights of a checkpoint, if it belongs to this recipe so far, and return how far it had come."""
        verify(newest)
        position = position_of(newest)
        theirs = past(read_manifest(newest)["recipe"], position.phase + 1)
        if faults := differences(theirs, past(dump(self.spec), position.phase + 1)):
            advice = "Use another --output-dir, or --fresh to start over there"
            raise SpecError([*faults, Fault("", advice)], f"{self.folder} holds a run of another recipe")
        load_modules(newest, WEIGHTS_FILE, self.modules)
        logger.info("resuming from %s", newest)
        return position

    def _check_start(self, done: Position | None) -> None:
        """Refuse to leave a phase half done.

        Raises:
            SpecError: saying how to finish it, or to go on without.
        """
        if done is not None and not done.complete and done.phase not in self.chosen and max(self.chosen) > done.phase:
            phase = self.spec.phases[done.phase]
            state = f"{phase.name} is at step {done.step} of {phase.num_steps} in {self.folder}"
            advice = "Run it too, or start in another folder with --init-weights from its newest checkpoint"
            raise SpecError([Fault("phases", f"{state}. {advice}")])

    def _begin(self, index: int) -> Work:
        phase = self.plan.phases[index]
        modules = phase.trained()
        for module in self.modules.values():
            module.eval().requires_grad_(False)
        parameters = trainable(modules, phase.spec.freeze)
        first_total = sum(each.num_steps for each in self.spec.phases[:index])
        optimizer = Optimizer(phase.spec.optimizer, modules, parameters)
        count = sum(parameter.numel() for parameter in parameters.values())
        logger.info("phase %s: %d steps, %s parameters", phase.spec.name, phase.spec.num_steps, f"{count:,}")
        return Work(index, phase, first_total, optimizer, Average(modules, phase.spec.ema_decay))

    def _continue(self, work: Work, newest: Path, done: Position) -> None:
        load_modules(newest, AVERAGE_FILE, work.average.modules)
        work.optimizer.restore(load_optimizer(newest))
        work.step = done.step

    def _run_phase(self, work: Work, interrupts: Interrupts) -> None:
        spec = work.phase.spec
        batches = feed(
            work.phase.sources(),
            seed=self.spec.seed,
            phase=spec.name,
            first_step=work.step,
            num_steps=spec.num_steps,
            num_workers=spec.num_workers,
        )
        for module in work.phase.trained().values():
            module.train()
        gauge = Gauge()
        with PhaseProgress(spec.name, work.step, spec.num_steps) as progress:
            for batch in batches:
                values = self._step(work, batch, gauge)
                work.step += 1
                ended = work.step == spec.num_steps
                if work.step % STEPS_PER_ROW == 0 or ended:
                    self._write(work, **gauge.row())
                if (work.step % spec.evaluation.every == 0) and not ended:
                    self._look(work, gauge)
                progress.update(work.step, values["loss"], gauge.text())
                if (work.step % self.spec.checkpoints.every == 0 or interrupts.signum) and not ended:
                    path = self._save(work)
                    if interrupts.signum:
                        message = f"stopped at step {work.step} of {spec.name}; saved as {path}"
                        raise TrainingStoppedError(message, interrupts.signum)
        self._end(work, gauge, interrupts)

    def _step(self, work: Work, batch: dict[str, Batch], gauge: Gauge) -> dict[str, float]:
        """Do one optimizer step and return the numbers of it."""
        spec, seed = work.phase.spec, self.spec.seed
        torch.manual_seed(derived(seed, spec.name, work.step, "layers"))
        rate = work.optimizer.set_learning_rate(work.step, spec.num_steps)
        moved = {name: each.to(self.device) for name, each in batch.items()}
        losses = work.phase.losses(moved, Draws(seed, spec.name, work.step))
        values = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(values["loss"]):
            raise DivergedError(self._diverged(work, "loss", values["loss"]))
        work.optimizer.adamw.zero_grad(set_to_none=True)
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        norm = float(work.optimizer.clip())
        if not math.isfinite(norm):
            raise DivergedError(self._diverged(work, "gradient norm", norm))
        work.optimizer.adamw.step()
        work.average.update(work.step)
        if spike := gauge.spike(norm):
            logger.warning("%s step %d: gradient norm %.3g, %s", spec.name, work.step, norm, spike)
        gauge.add({**values, "gradient_norm": norm, "learning_rate": rate})
        return values

    def _diverged(self, work: Work, what: str, value: float) -> str:
        newest = self.checkpoints.newest()
        kept = f"The last checkpoint, {newest}, is untouched" if newest else "There is no checkpoint yet"
        return (
            f"{work.phase.spec.name} step {work.step}: the {what} is {value}. {kept}. "
            "Lower optimizer.learning_rate or optimizer.gradient_clip, or raise optimizer.warmup_steps"
        )

    def _write(self, work: Work, **row: Any) -> None:
        self.journal.add(total=work.first_total + work.step, phase=work.phase.spec.name, step=work.step, **row)

    def _look(self, work: Work, gauge: Gauge) -> None:
        """Measure the averaged weights and log it."""
        spec, start = work.phase.spec, time.monotonic()
        picture = self.folder / "samples" / f"{work.first_total + work.step:08d}-{spec.name}.png"
        measured = work.phase.look(work.average.modules, picture)
        seconds = time.monotonic() - start
        gauge.show(measured, seconds)
        self._write(work, look=measured, look_seconds=round(seconds, 3))
        shown = "  ".join(f"{name} {value:.3f}" for name, value in measured.items())
        logger.info("%s %d: %s  (%.0f s, %s)", spec.name, work.step, shown, seconds, picture)

    def _save(self, work: Work) -> Path:
        position = Position(work.index, work.step, work.first_total + work.step)
        averaged, state = work.average.modules, work.optimizer.state()
        return self.checkpoints.save(position, self.modules, self._record(), averaged, state)

    def _record(self) -> dict[str, Any]:
        return {"recipe": dump(self.spec), "components": self.components}

    def _end(self, work: Work, gauge: Gauge, interrupts: Interrupts) -> None:
        """Hand the averaged weights on to what comes next, and save them."""
        if work.step:
            self._look(work, gauge)
            for name, module in work.phase.trained().items():
                fill(module, work.average.modules[name].state_dict())
        position = Position(work.index, work.step, work.first_total + work.step, complete=True)
        weights = self.folder / "weights"
        save_stage(self.modules, self.spec.model, weights, components=self.components, overwrite=True)
        path = self.checkpoints.save(position, self.modules, self._record())
        if interrupts.signum:
            raise TrainingStoppedError(f"stopped after {work.phase.spec.name}; saved as {path}", interrupts.signum)

    def _finish(self) -> dict[str, Any]:
        looks = {row["phase"]: row["look"] for row in self.journal.rows() if "look" in row}
        seconds = sum(row.get("seconds", 0.0) + row.get("look_seconds", 0.0) for row in self.journal.rows())
        report = {**self._record(), "measured": looks, "seconds": seconds}
        write_text(self.folder / "report.json", json.dumps(report, indent=1))
        return report
