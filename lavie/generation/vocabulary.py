"""What an encoder with a list of words knows, and the answer to a prompt that goes beyond it."""

import difflib
import unicodedata
from collections.abc import Sequence

from lavie.blocks.tokenizer import WordsSpec
from lavie.building import parts
from lavie.data.shapes import MOTIONS, known
from lavie.errors import PromptError
from lavie.generation.prompts import shorten
from lavie.spec import Spec
from lavie.stages.travel import segments


def known_words(spec: Spec) -> tuple[str, ...]:
    """Return the words that a spec's text encoder knows; nothing for encoders that read any text."""
    return tuple(word for _, part in parts(spec) if isinstance(part, WordsSpec) for word in part.vocabulary)


def check_words(prompt: str, lost: Sequence[str], spec: Spec, name: str) -> str:
    """Refuse a prompt with words that the model never learned; return a warning if only its end is cut off.

    Raises:
        PromptError: naming the words, what is near to them, and what the model knows instead.
    """
    vocabulary = known_words(spec)
    unknown = [word for word in lost if word.lower() not in vocabulary] if vocabulary else []
    if vocabulary:  # which read words only: a picture of a star would be passed over in silence
        texts = "".join(segments(prompt))
        unknown += [character for character in texts if unicodedata.category(character).startswith("S")]
    unknown = list(dict.fromkeys(unknown))
    if unknown:
        hints = [hint for word in unknown[:10] if (hint := _nearest(word, vocabulary))]
        lines = [f"{name} does not know {_listed(unknown)} in the prompt {shorten(prompt)}."]
        lines += [f"Nearest: {'; '.join(hints)}."] if hints else []
        raise PromptError("\n".join([*lines, *_world(vocabulary)]))
    if lost:
        return f"the prompt {shorten(prompt)} is longer than {name} reads; cut off: {_listed(list(lost))}"
    return ""


def _nearest(word: str, vocabulary: Sequence[str]) -> str:
    close = difflib.get_close_matches(word.lower(), vocabulary, n=2, cutoff=0.6)
    return f"{shorten(word, 30)} → {' or '.join(close)}" if close else ""


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(shorten(word, 30) for word in words[:10])
    return f"{shown} and {len(words) - 10} more" if len(words) > 10 else shown


def _world(vocabulary: Sequence[str]) -> list[str]:
    """Describe the words by what they stand for where they are those of the world `shapes`, else list them."""
    world = known()
    phrases = [phrases[0] for phrases in MOTIONS.values()]
    if not {*world["colour"], *world["shape"], *world["background"], *" ".join(phrases).split()} <= set(vocabulary):
        return [f"It knows: {', '.join(vocabulary)}."]
    colour, shape, background = world["colour"], world["shape"], world["background"]
    return [
        "It was trained on one coloured shape that moves on a plain background, and knows",
        f"  colours      {', '.join(colour)}",
        f"  shapes       {', '.join(shape)}",
        f"  motions      {', '.join(phrases)}",
        f"  backgrounds  {', '.join(background)}",
        f'For example: "a {colour[0]} {shape[0]} {phrases[0]} on a {background[0]} background"',
    ]


__all__ = ["check_words", "known_words"]
