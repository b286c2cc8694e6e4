"""Runs one file of recorded numbers and says in a row how it went."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from lavie.blocks.kernels import DEFAULT, attention_in_use
from lavie.errors import LavieError, WeightsError
from lavie.samplers.recorded_tables import UnsupportedError
from lavie.verification.comparison import Comparison, MismatchError, Place, measure, worst
from lavie.verification.golden import Golden, read_golden
from lavie.verification.networks import compare_autoencoder, compare_text_encoder, compare_unet
from lavie.verification.numbers import compare_losses, compare_sampler, compare_tables

Status = Literal["pass", "fail", "unsupported", "error"]
DTypeName = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Result:
    """One row: how near our numbers came to those of one file."""

    name: str
    kind: str
    status: Status
    detail: str = ""
    """Why it is no pass, or what was left out."""
    max_error: float | None = None
    """Largest difference."""
    relative_error: float | None = None
    """That, over the largest recorded value."""
    bound: str = ""


def verify_file(path: Path, device: str = "cpu", dtype: DTypeName = "float32") -> Result:
    """Compare our numbers with those of one file; whatever is wrong with it ends in the row, not in an exception.

    Networks run on `device` in `dtype`, with bounds that fit; solvers, tables and losses always in float32 or better
    on the CPU.
    """
    place = Place(torch.device(device), getattr(torch, dtype))
    kind = ""
    try:
        golden = read_golden(path)
        kind = golden.kind
        with _full_precision(place):
            comparison = _compare(golden, place)
        return _judge(path.stem, kind, comparison)
    except UnsupportedError as error:
        return Result(path.stem, kind, "unsupported", _line(error))
    except (MismatchError, WeightsError) as error:
        return Result(path.stem, kind, "fail", _line(error))
    except Exception as error:  # a hostile file may break anything; its row says what
        logging.getLogger(__name__).debug("%s", path, exc_info=True)
        return Result(path.stem, kind, "error", _line(error))


def conditions(device: str = "cpu", dtype: DTypeName = "float32") -> str:
    """Say in a line where and how things run, and what bounds that widens."""
    place, kernel = Place(torch.device(device), getattr(torch, dtype)), attention_in_use()
    attention = "" if kernel == DEFAULT else f", attention by {kernel}"
    return f"{place}{attention}; all else in float32 on the CPU"


def _compare(golden: Golden, place: Place) -> Comparison:
    match golden.kind:
        case "base" | "interpolation" | "upscaling" | "image" as network:
            return compare_unet(golden, place, network)
        case "autoencoder":
            return compare_autoencoder(golden, place)
        case "text_encoder":
            return compare_text_encoder(golden, place)
        case "sampler":
            return compare_sampler(golden)
        case "losses":
            return compare_losses(golden)
        case "tables":
            return compare_tables(golden)


def _judge(name: str, kind: str, comparison: Comparison) -> Result:
    left_out = f"no counterpart yet: {', '.join(comparison.missing)}" if comparison.missing else ""
    differences = [measure(check) for check in comparison.checks]
    if not differences:
        return Result(name, kind, "unsupported", left_out or "nothing in it can be compared")
    most = worst(differences)
    reason = "" if most.passes else f"{most.label} is {most.excess:.3g} times its bound"
    return Result(
        name,
        kind,
        "pass" if most.passes else "fail",
        "; ".join(filter(None, (reason, left_out))),
        most.absolute,
        most.relative,
        str(most.bound),
    )


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no reason given"
    return text if isinstance(error, LavieError) else f"{type(error).__name__}: {text}"


@contextmanager
def _full_precision(place: Place) -> Iterator[None]:
    """Keep CUDA from rounding the factors of float32 products to ten bits, as it does for convolutions by default."""
    if place.device.type != "cuda":
        yield
        return
    settings = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision
