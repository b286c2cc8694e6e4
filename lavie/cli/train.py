"""`lavie train`: run a training recipe, or go on with a run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from lavie.cli.app import DONE, FAILED, UsageError, Whole, complain, say

if TYPE_CHECKING:
    from lavie.training import Trainer


@Parameter(name="*", group="Which part of it")
@dataclass(frozen=True)
class PhaseOptions:
    """Phases; without any of these, all."""

    phases: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    """Run only this phase. May be given several times; the order is the recipe's."""
    until_phase: str | None = None
    """Stop after this phase."""


@Parameter(name="*", group="Where it starts")
@dataclass(frozen=True)
class StartOptions:
    """What comes before the first step."""

    init_weights: Path | None = None
    """Folder of weights, or checkpoint of another run, to start from; a run that goes on keeps its own."""
    init_parts: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    """Take only this part of them: denoiser, autoencoder or text_encoder. May be given several times."""
    fresh: bool = False
    """Set the earlier run in the output folder aside, under another name, and start over."""


@Parameter(name="*", group="On what machine")
@dataclass(frozen=True)
class MachineOptions:
    """Device and threads."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:1; auto takes CUDA where there is one."""
    threads: Annotated[Whole | None, Parameter(validator=Number(gte=1, lte=1024))] = None
    """CPU threads. [default: as torch chooses]"""


def train(
    spec: str,
    /,
    *,
    output_dir: Path = Path("run"),
    settings: Annotated[tuple[str, ...], Parameter(name="--set", show_default=False)] = (),
    part: PhaseOptions = PhaseOptions(),
    start: StartOptions = StartOptions(),
    machine: MachineOptions = MachineOptions(),
) -> int:
    """Train a model by a recipe; the same command goes on with a run that was cut short.

    Writes checkpoints, samples and metrics.jsonl into the output folder as it goes, and at the end of each phase the
    weights, for `lavie generate --weights`. Ctrl-C stops at the next step and saves; a second one stops at once.

    Parameters
    ----------
    spec
        Name of a shipped recipe, or path of a recipe file.
    output_dir
        Folder of the run; made if missing.
    settings
        Change a value of the recipe: path=value. May be given several times.
    """
    from lavie.training import DivergedError, TrainingStoppedError

    with _log_on_stderr():
        trainer = _trainer(spec, output_dir, settings, part, machine)
        if start.fresh:
            trainer.set_aside()
        if start.init_weights is not None:
            trainer.init_from(start.init_weights, start.init_parts)
        elif start.init_parts:
            raise UsageError("--init-parts says what to take of --init-weights, which is not given")
        try:
            trainer.run()
        except DivergedError as error:
            complain(str(error))
            return FAILED
        except TrainingStoppedError as stopped:
            complain(f"{stopped}; the same command goes on from there")
            return 128 + stopped.signum
    say(str(output_dir / "weights"))
    return DONE


class _Handler(logging.Handler):
    """Writes to what is stderr at the moment: while a bar is shown, that is the space above it."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(self.format(record))


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    logger, handler = logging.getLogger("lavie"), _Handler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _trainer(
    spec: str, output_dir: Path, settings: tuple[str, ...], part: PhaseOptions, machine: MachineOptions
) -> "Trainer":
    import torch

    from lavie.blocks.kernels import check_attention
    from lavie.generation.choice import find_device
    from lavie.generation.record import foreign_components
    from lavie.registry import installed
    from lavie.specfile import load_spec
    from lavie.training import Trainer, TrainSpec

    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    registry = installed()
    recipe = load_spec(spec, registry, settings, kind="recipe")
    if not isinstance(recipe, TrainSpec):
        raise UsageError(f"{spec}: recipes of type train are trained, not {type(recipe).__name__}")
    device = find_device(machine.device)
    check_attention(None, device)
    return Trainer(
        recipe,
        output_dir,
        device=device,
        phases=part.phases,
        until_phase=part.until_phase,
        components=foreign_components(recipe, registry),
    )
