"""Which of the networks in a folder of published files is the one that a stage needs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from lavie.errors import WeightsError
from lavie.spec import Spec
from lavie.weights.conversion import convert, likeness
from lavie.weights.ledger import Ledger
from lavie.weights.shapes import shapes_of
from lavie.weights.source import Part, is_safetensors
from lavie.weights.survey import Candidate, Survey

_SHOWN = 5
_OPENCLIP = "openclip"


@dataclass(frozen=True)
class Need:
    """A network of a stage, for which a file is looked for."""

    stage: str
    """The stage's name; empty for one that is no part of a cascade."""
    part: Part
    owner: Spec
    """The stage's spec."""
    published: str = ""
    """The name under which the network is published, if it is."""

    @property
    def spec(self) -> Spec:
        """Return the network's spec."""
        spec: Spec = getattr(self.owner, self.part)
        return spec

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name and shape of the network's tensors."""
        return shapes_of(self.spec)

    def __str__(self) -> str:
        """Name it towards users."""
        return f"{self.stage}: {self.part}" if self.stage else self.part

    def fault(self, candidate: Candidate) -> str:
        """Say why a network that was found is not this one; nothing if it is."""
        try:
            convert({self.part: candidate.holding}, self.owner)
        except WeightsError as error:
            text = str(error).removeprefix(str(candidate.holding.path)).lstrip(": ")
            first, *rest = text.splitlines()
            return " ".join([first, "; ".join([*rest[:2], *rest[-1:]] if len(rest) > 3 else rest)]).strip()
        return ""

    def may_be(self, candidate: Candidate) -> bool:
        """Tell quickly whether a network has all the sizes of tensors that this one has."""
        if candidate.holding.part != self.part:
            return False
        if candidate.holding.layout == _OPENCLIP:  # which joins tensors
            return True
        wanted = Counter(prod(shape) for shape in self.shapes.values())
        return not wanted - Counter(each.numel() for each in candidate.holding.tensors.values())


def choose(needs: Sequence[Need], found: Survey, ledger: Ledger) -> dict[Need, Candidate]:
    """Settle which network is which.

    Raises:
        WeightsError: listing all that are missing or there more than once, what comes nearest, and what helps.
    """
    chosen: dict[Need, Candidate] = {}
    faults = []
    for need in needs:
        fitting = [each for each in found.candidates if need.may_be(each) and not need.fault(each)]
        best = _best(fitting, need, found, ledger)
        if len(best) == 1:
            chosen[need] = best[0]
        else:
            faults.append(_doubled(need, best, found) if best else _missing(need, found))
    if faults:
        raise WeightsError("\n".join([f"{found.folder} does not hold what is needed:", *faults, *_unread(found)]))
    return chosen


def _best(fitting: Sequence[Candidate], need: Need, found: Survey, ledger: Ledger) -> list[Candidate]:
    """Return what is left of those that fit: one, unless it takes a person to choose.

    A network's own files go before files of several networks, safetensors before pickles of the same name, full
    precision before half; then the published name or a folder with the stage's name decides, and of copies the first.
    """
    variants: dict[str, Candidate] = {}
    for each in sorted(fitting, key=lambda each: (not is_safetensors(each.files[0]), each.is_half)):
        path = each.holding.path
        stem = found.name(path if path.is_dir() else path.with_suffix("")).removesuffix(".fp16")
        variants.setdefault(stem, each)
    left = sorted(variants.values(), key=lambda each: found.name(each.holding.path))
    left = [each for each in left if each.is_alone] or left
    if len(left) > 1:
        names = [found.name(each.holding.path) for each in left]
        called = [
            each
            for each, name in zip(left, names, strict=True)
            if need.published and f"/{name}".endswith(f"/{need.published}")
        ]
        beside = [each for each, name in zip(left, names, strict=True) if need.stage and need.stage in Path(name).parts]
        left = called or beside or left
    if len(left) > 1 and len({tuple(ledger.sha256(file) for file in each.files) for each in left}) == 1:
        left = left[:1]
    return left


def _missing(need: Need, found: Survey) -> str:
    alike = [(likeness(each.holding, need.spec), each) for each in found.candidates if each.holding.part == need.part]
    share, nearest = max(alike, key=lambda pair: pair[0], default=(0.0, None))
    text = f"{need}: no file has its {len(need.shapes)} tensors"
    if nearest is not None and share > 0:
        text += f"; nearest is {found.name(nearest.holding.path)}, with {share:.0%} of them: {need.fault(nearest)}"
    elif nearest is not None:
        text += f"; {found.name(nearest.holding.path)} is another {need.part}"
    return f"{text}. {f'Download {need.published} into the folder' if need.published else 'Put one into the folder'}"


def _doubled(need: Need, best: Sequence[Candidate], found: Survey) -> str:
    names = " and ".join(found.name(each.holding.path) for each in best)
    remedy = f"Leave one of them there, or choose with lavie convert … --part {need.part}=PATH and use --weights"
    return f"{need}: {names} fit, and differ. {remedy}"


def _unread(found: Survey) -> list[str]:
    """Tell what else is in the folder, as far as it may explain what is missing."""
    lines = [f"{found.name(path)} is a weights folder of lavie, for --weights" for path in found.own]
    lines += [f"not used: {reason}" for reason in found.refused.values()]
    more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return lines[:_SHOWN] + more
