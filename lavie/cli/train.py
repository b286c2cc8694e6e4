"""`lavie train`: run a training recipe, or go on with a run."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def train(
    spec: str,
    /,
    *,
    output_dir: Path = Path("run"),
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    phases: Annotated[list[str] | None, Parameter(negative=())] = None,
    until_phase: str | None = None,
    init_weights: Path | None = None,
    init_parts: Annotated[list[str] | None, Parameter(negative=())] = None,
    fresh: Annotated[bool, Parameter(negative=())] = False,
    threads: int | None = None,
    device: str = "cpu",
) -> None:
    """Train a model by a recipe; a run that was cut short goes on where it was last saved.

    Writes checkpoints, samples and metrics.jsonl into the output folder as it goes, and at the end of each phase the
    weights, ready for `lavie generate --weights`.

    Parameters
    ----------
    spec
        Name of a shipped recipe, or path of a recipe file.
    output_dir
        Folder of the run.
    settings
        Change a value of the recipe: path=value. May be given several times.
    phases
        Run only these phases, in the recipe's order. May be given several times.
    until_phase
        Stop after this phase.
    init_weights
        Start from the weights in this folder.
    init_parts
        Take only these parts of them: denoiser, autoencoder, text_encoder.
    fresh
        Set an earlier run in the output folder aside and start over.
    threads
        CPU threads; all cores by default.
    device
        Where to train: cpu, cuda, cuda:1, ...
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    import torch

    from lavie.registry import installed
    from lavie.specfile import load_spec
    from lavie.training import Trainer, TrainingStoppedError, TrainSpec

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    recipe = load_spec(spec, installed(), settings or (), kind="recipe")
    assert isinstance(recipe, TrainSpec)
    trainer = Trainer(recipe, output_dir, device=device, phases=phases or (), until_phase=until_phase)
    if fresh:
        trainer.set_aside()
    if init_weights is not None:
        trainer.init_from(init_weights, init_parts or ())
    try:
        trainer.run()
    except TrainingStoppedError as stopped:
        logging.getLogger(__name__).warning("%s; the same command goes on from there", stopped)
        raise SystemExit(128 + stopped.signum) from None
