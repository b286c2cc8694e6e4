"""Compare a stage that starts from a video with plain ways to do its work, on clips that it did not learn from.

python -m benchmarks.compare interpolation-tiny --clips 32 --video FILE.mp4
python -m benchmarks.compare upscaling-tiny --clips 32 --video FILE.mp4
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines import INTERPOLATION, UPSCALING, Baseline, check_installed
from benchmarks.comparing import OURS, Options, Result, compare, methods_of
from benchmarks.comparison_report import Sheets, tables
from benchmarks.held_out import SPLITS, files, shapes
from lavie.errors import LavieError
from lavie.generation.choice import choose_model
from lavie.generation.model import Model
from lavie.generation.record import environment
from lavie.spec import dump
from lavie.stages import LatentDiffusion, StageSpec
from lavie.stages.given_frames import GivenFramesSpec
from lavie.stages.latent_diffusion import LatentDiffusionSpec
from lavie.stages.low_res import LowResSpec


class ComparisonError(LavieError):
    """A comparison that makes no sense."""


def baselines_of(spec: StageSpec) -> dict[str, Baseline]:
    """Return what a stage is to be compared with.

    Raises:
        ComparisonError: if there is nothing.
    """
    match spec.source if isinstance(spec, LatentDiffusionSpec) else None:
        case GivenFramesSpec(every=every) if every > 1:
            return INTERPOLATION
        case LowResSpec():
            return UPSCALING
    raise ComparisonError("only stages that put frames between given ones, or enlarge them, can be compared")


def record(model: Model, results: Sequence[Result], options: argparse.Namespace) -> dict[str, Any]:
    """Return everything that was measured, and what with."""
    return {
        "format": "lavie-comparison-1",
        "spec_name": model.name,
        "spec": dump(model.spec),
        "spec_hash": model.hash,
        "weights_sha256": model.weights_sha256,
        "environment": environment(model.device),
        "threads": torch.get_num_threads(),
        "seed": options.seed,
        "through": options.through,
        "results": [asdict(result) for result in results],
    }


def run(options: argparse.Namespace) -> str:
    """Do what the command line says, and return the tables.

    Raises:
        LavieError: for whatever its user can mend.
    """
    model = choose_model(options.spec, overrides=options.set, weights=options.weights, device=options.device)
    baselines = _chosen(baselines_of(model.spec), options.methods)
    shape = model.shape()
    real = files(shape, options.video)
    drawn = chain.from_iterable(shapes(shape, split, options.clips) for split in options.split)
    count = len(options.split) * max(0, options.clips) + len(real)
    if not count:
        raise ComparisonError("nothing to compare on: ask for --clips, or name files with --video")
    stage = _part(model)
    folder = options.out or Path(f"compare-{model.name}")
    folder.mkdir(parents=True, exist_ok=True)
    before = _part(choose_model(options.through, device=options.device)).autoencoder if options.through else None
    settings = Options(options.seed, before)
    results: list[Result] = []
    sheets = Sheets(folder)
    start = time.perf_counter()
    for result, made in compare(stage, chain(drawn, real), methods_of(stage, baselines), settings):
        results.append(result)
        sheets.add(made)
        kept = json.dumps(record(model, results, options), indent=1)
        (folder / "results.json").write_text(kept + "\n", encoding="utf-8")
        left = (time.perf_counter() - start) / len(results) * (count - len(results))
        print(_progress(result, len(results), count, left), file=sys.stderr, flush=True)
    text = tables([asdict(result) for result in results], OURS)
    (folder / "results.md").write_text(text + "\n", encoding="utf-8")
    return f"{text}\n\n{folder}"


def _part(model: Model) -> LatentDiffusion:
    stage = model.load()
    if not isinstance(stage, LatentDiffusion):
        raise ComparisonError(f"{model.name} is not a single stage")
    return stage


def _chosen(baselines: Mapping[str, Baseline], wanted: Sequence[str] | None) -> dict[str, Baseline]:
    if unknown := set(wanted or ()) - set(baselines):
        raise ComparisonError(f"--methods: no {', '.join(sorted(unknown))}; there are {', '.join(baselines)}")
    chosen = {name: each for name, each in baselines.items() if wanted is None or name in wanted}
    for name in chosen:
        check_installed(name)
    return chosen


def _progress(result: Result, done: int, count: int, left: float) -> str:
    numbers = ", ".join(f"{name} {each['psnr']:.1f}" for name, each in result.methods.items())
    return f"{done}/{count}  {result.name}: PSNR {numbers}  {left / 60:.0f} min left"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.split("\n")[0])
    parser.add_argument("spec", nargs="?", help="name or file of the stage's spec; that of the weights if left out")
    parser.add_argument("--weights", type=Path, help="folder of weights; those that ship with lavie if left out")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change a value of the spec")
    parser.add_argument("--clips", type=int, default=32, help="clips of the world `shapes`, per split")
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=["triples"], help="which of them")
    parser.add_argument("--video", nargs="+", type=Path, default=[], metavar="FILE", help="video files besides")
    parser.add_argument("--through", metavar="SPEC", help="what is given has been through the autoencoder of this spec")
    parser.add_argument("--methods", nargs="+", help="some of the baselines only")
    parser.add_argument("--seed", type=int, default=0, help="of the first clip; the next has the next")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", type=Path, help="folder for results.json, results.md and pictures")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        print(run(options))
    except LavieError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or options.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
