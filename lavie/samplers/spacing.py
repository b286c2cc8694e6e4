"""How a solver's steps are spread over the table of a schedule."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

from lavie.errors import Fault, SpecError

Spacing = Literal["leading", "trailing", "linspace", "respaced", "even"]
"""`leading`: multiples of the integer stride, from 0 up, plus an offset; the last timesteps are left out.
`trailing`: down from the last timestep in equal strides, rounded. `linspace`: evenly from the last timestep to the
first, both included. `respaced`: the same, rounded after adding up strides from the first timestep on, where the error
of the sum decides which way halves go. `even`: like `trailing` without rounding, so that the step to the clean latent
is as long as the others."""
TableSpacing = Literal["leading", "trailing", "linspace", "respaced"]
"""The spacings of solvers that only step on entries of the table; `linspace` is rounded."""


def positions(spacing: Spacing, num_train_timesteps: int, num_inference_steps: int, offset: int = 0) -> list[float]:
    """Return the places in a schedule's table that the steps start from, decreasing, not rounded by `linspace`.

    Raises:
        SpecError: if the table has too few entries for so many steps.
    """
    total, count = num_train_timesteps, num_inference_steps
    match spacing:
        case "leading":
            check_count(total, count)
            first = (count - 1) * (total // count) + offset
            if first >= total:
                raise _fault(f"{count} steps with offset {offset} begin at timestep {first}, beyond {total - 1}")
            return [float(first - index * (total // count)) for index in range(count)]
        case "trailing":
            check_count(total, count)
            return [round(total - index * (total / count)) - 1.0 for index in range(count)]
        case "linspace":
            step = (total - 1) / max(count - 1, 1)
            return [float(total - 1), *(index * step for index in range(count - 2, -1, -1))]
        case "respaced":
            strides = [0.0] + [(total - 1) / (count - 1)] * (count - 1) if count > 1 else [float(total - 1)]
            return [float(round(position)) for position in accumulate(strides)][::-1]
        case "even":
            return [total * (1 - index / count) - 1 for index in range(count)]


def entries(spacing: TableSpacing, num_train_timesteps: int, num_inference_steps: int, offset: int = 0) -> list[float]:
    """Return the entries of a schedule's table that the steps start from, decreasing.

    Raises:
        SpecError: if the table has too few entries for so many steps.
    """
    check_count(num_train_timesteps, num_inference_steps)
    return [float(round(position)) for position in positions(spacing, num_train_timesteps, num_inference_steps, offset)]


def section_entries(num_train_timesteps: int, counts: Sequence[int]) -> list[int]:
    """Return the entries, increasing, that are kept of a table cut into as many sections as there are counts.

    Each section is spaced on its own like `respaced`, both its ends included (arXiv 2102.09672, §4).

    Raises:
        ValueError: if a section has fewer entries than are to be kept of it.
    """
    size, larger = divmod(num_train_timesteps, len(counts))
    kept, start = [], 0
    for index, count in enumerate(counts):
        entries_here = size + (index < larger)
        if not 0 < count <= entries_here:
            raise ValueError(f"{count} steps cannot be chosen among the {entries_here} of section {index + 1}")
        strides = [0.0] + [(entries_here - 1) / (count - 1)] * (count - 1) if count > 1 else [0.0]
        kept += [start + round(position) for position in accumulate(strides)]
        start += entries_here
    return kept


def check_count(num_train_timesteps: int, num_inference_steps: int) -> None:
    """Refuse more steps than there are timesteps to start them from.

    Raises:
        SpecError: naming both numbers.
    """
    if num_inference_steps > num_train_timesteps:
        raise _fault(f"{num_inference_steps} steps do not fit into {num_train_timesteps} timesteps; take fewer")


def _fault(message: str) -> SpecError:
    return SpecError([Fault("num_inference_steps", message)])
