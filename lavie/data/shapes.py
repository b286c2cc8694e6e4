"""The world `shapes`: one coloured shape that moves on a plain background, drawn on the fly with exact labels.

Small enough that a model learns it in minutes, and every attribute can be read back from the pixels
(`lavie.metrics.shapes`), so it serves training, ablation and evaluation alike.
"""

import math
import re
from itertools import zip_longest
from typing import Annotated, Literal, Self, final

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, model_validator

from lavie.data.base import Clip, Dataset, DatasetSpec
from lavie.data.sprites import SILHOUETTES, coverage
from lavie.spec import Count, Fraction, Positive

COLOURS = {
    "red": (0.90, 0.10, 0.12),
    "green": (0.10, 0.70, 0.20),
    "blue": (0.12, 0.30, 0.98),
    "yellow": (0.98, 0.90, 0.10),
    "purple": (0.65, 0.15, 0.85),
    "orange": (1.00, 0.50, 0.05),
    "cyan": (0.10, 0.88, 0.92),
    "white": (1.00, 1.00, 1.00),
}
"""Colours of shapes, RGB in [0, 1]."""
BACKGROUNDS = {
    "black": (0.00, 0.00, 0.00),
    "gray": (0.34, 0.34, 0.34),
    "navy": (0.04, 0.06, 0.26),
    "brown": (0.28, 0.16, 0.06),
}
"""Colours of backgrounds, RGB in [0, 1]: dark, and far from every colour of a shape."""
MOTIONS = {
    "left": ("moving left", "moves left", "going left", "moving to the left"),
    "right": ("moving right", "moves right", "going right", "moving to the right"),
    "up": ("moving up", "moves up", "going up"),
    "down": ("moving down", "moves down", "going down"),
    "still": ("standing still", "stands still"),
    "growing": ("growing", "grows"),
    "shrinking": ("shrinking", "shrinks"),
    "circling": ("circling", "circles"),
}
"""What a shape can do, and the ways a caption says it, the usual one first."""
SHAPES = tuple(SILHOUETTES)
"""What a shape can be."""
VOCABULARY = (
    *("a", "an", "the", "on", "to", "background"),
    *("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white"),
    *("circle", "triangle", "star", "cross", "heart", "ring", "bar", "moon"),
    *("moving", "moves", "going", "left", "right", "up", "down", "standing", "stands", "still"),
    *("growing", "grows", "shrinking", "shrinks", "circling", "circles"),
    *("black", "gray", "grey", "navy", "brown"),
)
"""Every word a caption can contain, in a fixed order: tokenizers of trained models count on it."""

_ATTRIBUTE_OF = {
    **{word: ("colour", word) for word in COLOURS},
    **{word: ("shape", word) for word in SHAPES},
    **{
        word: ("motion", motion)
        for motion, phrases in MOTIONS.items()
        for word in (phrase.split()[-1] for phrase in phrases)
    },
    **{word: ("background", word) for word in BACKGROUNDS},
    "grey": ("background", "gray"),
}
_SPLITS = {"train": 0, "seen": 1, "triples": 2, "pairs": 3}
_RADIUS = (0.16, 0.22)
_SMALLEST = 0.45
_SWELL = 1.3


def known() -> dict[str, tuple[str, ...]]:
    """Return the words this world has for each attribute."""
    return {"colour": tuple(COLOURS), "shape": SHAPES, "motion": tuple(MOTIONS), "background": tuple(BACKGROUNDS)}


def parse(prompt: str) -> dict[str, str]:
    """Read the attributes that a free prompt asks for; what it does not say, or not in known words, is left out.

    The first word of each attribute counts, and a word right before "background" says nothing about the shape.
    """
    words = re.findall(r"[a-z]+", prompt.lower())
    labels: dict[str, str] = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        attribute, value = _ATTRIBUTE_OF.get(word, ("", ""))
        if attribute and (following != "background" or attribute == "background"):
            labels.setdefault(attribute, value)
    return labels


class ShapesSpec(DatasetSpec):
    """Clips of one coloured shape that moves on a plain background, with captions.

    Held out, by the places of colour c, shape s and motion m in their lists: the pairs with s < `held_out_pairs` and
    c = 3s + 2 (mod 8) are never shown in training; of the other combinations those with c - s + m = 0 (mod
    `held_out_triples`) are never shown as video, though as images they are.
    """

    type: Literal["shapes"] = "shapes"
    split: Literal["train", "seen", "triples", "pairs"] = "train"
    """`train`; `seen`: other clips of the combinations shown in training; `triples` and `pairs`: held-out ones only.
    All but `train` take their combinations in turn and always say colour and motion."""
    num_clips: Annotated[int, Field(ge=1, le=2**62)] = 1_000_000
    """Clips in one pass; they are drawn when asked for."""
    num_frames: Count = 16
    """Frames of a clip; with 1, images of any moment, whose captions never mention motion."""
    height: Annotated[int, Field(ge=16, le=4096)] = 64
    """Pixels."""
    width: Annotated[int, Field(ge=16, le=4096)] = 64
    """Pixels."""
    fps: Positive = 8.0
    """Frames per second."""
    seed: Annotated[int, Field(ge=0, le=2**62)] = 0
    """Another seed, other clips."""
    word_drop: Fraction = 0.05
    """How often a training caption leaves out the colour, and how often the motion."""
    held_out_pairs: Annotated[int, Field(ge=0, le=8)] = 6
    """How many colour-shape pairs are never shown in training."""
    held_out_triples: Annotated[int, Field(ge=0, le=8)] = 6
    """One in how many of the remaining colour-shape-motion combinations is never shown as video; 0 for none."""

    @model_validator(mode="after")
    def _has_combinations(self) -> Self:
        if self.held_out_triples == 1:
            raise ValueError("held_out_triples: 1 would leave no video to train on. Use 0 for none, or 2 to 8")
        if not combinations(self):
            raise ValueError(f"split {self.split!r} is empty: nothing is held out that way")
        return self

    def build(self) -> "Shapes":
        """Return the dataset; nothing is drawn yet."""
        return Shapes(self)


def combinations(spec: ShapesSpec) -> list[tuple[str, str, str]]:
    """List the (colour, shape, motion) combinations of a split; for images the motion only places the shape."""
    chosen = []
    for c, colour in enumerate(COLOURS):
        for s, shape in enumerate(SHAPES):
            pair = s < spec.held_out_pairs and c == (3 * s + 2) % 8
            for m, motion in enumerate(MOTIONS):
                triple = spec.held_out_triples > 0 and (c - s + m) % spec.held_out_triples == 0
                part = "pairs" if pair else "triples" if triple and spec.num_frames > 1 else "seen"
                if part == spec.split.replace("train", "seen"):
                    chosen.append((colour, shape, motion))
    return chosen


@final
class Shapes(Dataset):
    """The world `shapes`, clip by clip."""

    def __init__(self, spec: ShapesSpec) -> None:
        self.spec = spec
        self.combinations = combinations(spec)
        order = np.random.default_rng(_SPLITS[spec.split]).permutation(len(self.combinations))
        self._turn = order.tolist()

    def __len__(self) -> int:
        return self.spec.num_clips

    def clip(self, index: int) -> Clip:
        """Draw one clip.

        Raises:
            IndexError: if `index` is not in [0, len).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of a dataset of {len(self)} clips")
        spec, n = self.spec, len(self.combinations)
        rng = np.random.default_rng([spec.seed, _SPLITS[spec.split], index])
        which = int(rng.integers(n)) if spec.split == "train" else self._turn[index % n]
        colour, shape, motion = self.combinations[which]
        background = _pick(rng, tuple(BACKGROUNDS))
        labels = {"colour": colour, "shape": shape, "motion": motion, "background": background}
        if spec.num_frames == 1:
            times = rng.random(1)
            del labels["motion"]
        else:
            times = np.linspace(0, 1, spec.num_frames)
        caption = _caption(rng, labels, spec.word_drop if spec.split == "train" else 0.0)
        centers, sizes = _path(rng, shape, motion, times, spec.height, spec.width)
        covered = torch.from_numpy(coverage(SILHOUETTES[shape], centers, sizes, spec.height, spec.width))
        back, front = (torch.tensor(rgb).view(3, 1, 1, 1) * 2 - 1 for rgb in (BACKGROUNDS[background], COLOURS[colour]))
        return Clip(torch.addcmul(back, covered, front - back), caption, spec.fps, labels)


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _caption(rng: np.random.Generator, labels: dict[str, str], word_drop: float) -> str:
    """Say what is to be seen, in one of the usual ways, leaving out the background half the time."""
    draws = rng.random(5)
    words = [labels["shape"]]
    if draws[0] >= word_drop:
        words.insert(0, labels["colour"])
    if draws[1] < 0.7:
        words.insert(0, "an" if words[0] == "orange" else "a")
    elif draws[1] < 0.85:
        words.insert(0, "the")
    if "motion" in labels and draws[2] >= word_drop:
        phrases = MOTIONS[labels["motion"]]
        words.append(phrases[0] if rng.random() < 0.6 else _pick(rng, phrases))
    if draws[3] < 0.5:
        background = labels["background"]
        words.append(f"on a {'grey' if background == 'gray' and draws[4] < 0.3 else background} background")
    return " ".join(words)


def _path(
    rng: np.random.Generator, shape: str, motion: str, times: Float[np.ndarray, " f"], height: int, width: int
) -> tuple[Float[np.ndarray, "f 2"], Float[np.ndarray, " f"]]:
    """Return where a shape is (x right, y down) and how large, in units of the shorter side, always inside the frame.

    Directions run from edge to edge but for a little; turning is clockwise, once round; growing ends, and shrinking
    starts, at a size above the others', so that the small end is still a shape.
    """
    radius = rng.uniform(*_RADIUS)
    if motion in ("growing", "shrinking"):
        radius *= _SWELL
    reach = radius * SILHOUETTES[shape].reach
    frame = np.array([width, height]) / min(width, height)
    low, high = np.full(2, reach), frame - reach
    centers = np.broadcast_to(rng.uniform(low, high), (len(times), 2)).copy()
    sizes = np.full(len(times), radius)
    if motion in ("left", "right", "up", "down"):
        axis = 0 if motion in ("left", "right") else 1
        first, last = low[axis] + rng.uniform(0, 0.06), high[axis] - rng.uniform(0, 0.06)
        moment = times if motion in ("right", "down") else 1 - times
        centers[:, axis] = first + (last - first) * moment
    elif motion in ("growing", "shrinking"):
        moment = times if motion == "growing" else 1 - times
        sizes = radius * (_SMALLEST + (1 - _SMALLEST) * moment)
    elif motion == "circling":
        orbit = min(rng.uniform(0.22, 0.26), 0.5 - reach)
        room = frame / 2 - reach - orbit
        middle = frame / 2 + rng.uniform(-1, 1, 2) * np.minimum(room, 0.05)
        angle = 2 * math.pi * (times + rng.random())
        centers = middle + orbit * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return centers, sizes
