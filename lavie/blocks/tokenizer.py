"""Tokenizers: prompts to token numbers. CLIP's byte pairs for published encoders, plain words for small ones."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, final

from pydantic import AfterValidator, Field

from lavie.spec import Spec

CLIP_VOCAB_SIZE = 49408
_CLIP_BOS, _CLIP_EOS = 49406, 49407
_PAD, _BOS, _EOS, _UNKNOWN, _FIRST_WORD = range(5)
_LETTERS = re.compile(r"[^\W\d_]+")
_LETTERS_OR_DIGITS = re.compile(r"[^\W_]+")


class Tokenizer(ABC):
    """Turns a prompt into a fixed number of token numbers: start, content, end, padding."""

    vocab_size: int
    """Token numbers are in [0, vocab_size)."""

    @abstractmethod
    def encode(self, prompt: str, max_tokens: int) -> list[int]:
        """Return exactly `max_tokens` numbers; content that does not fit is cut, the end token never."""

    @abstractmethod
    def lost_words(self, prompt: str, max_tokens: int) -> list[str]:
        """Return the words of a prompt that the encoder will not see, in order."""


class TokenizerSpec(Spec, ABC):
    """How prompts become token numbers."""

    kind: ClassVar[str] = "tokenizer"

    @abstractmethod
    def build(self) -> Tokenizer:
        """Build it; reads files of installed packages at most."""


def _framed(content: Sequence[int], max_tokens: int, *, bos: int, eos: int, pad: int) -> list[int]:
    ids = [bos, *content[: max_tokens - 2], eos]
    return ids + [pad] * (max_tokens - len(ids))


@final
class ClipBpe(Tokenizer):
    """CLIP's byte-pair encoding (arXiv 2103.00020, §2.4) with the vocabulary that open_clip brings along."""

    def __init__(self, pad_id: int) -> None:
        self.vocab_size = CLIP_VOCAB_SIZE
        self.pad_id = pad_id

    @cached_property
    def _bpe(self) -> Any:
        # open_clip is slow to import, and networks are often built without ever seeing a prompt.
        from open_clip.tokenizer import SimpleTokenizer

        return SimpleTokenizer()

    def encode(self, prompt: str, max_tokens: int) -> list[int]:
        """Return exactly `max_tokens` numbers; content that does not fit is cut, the end token never."""
        return _framed(self._bpe.encode(prompt), max_tokens, bos=_CLIP_BOS, eos=_CLIP_EOS, pad=self.pad_id)

    def lost_words(self, prompt: str, max_tokens: int) -> list[str]:
        """Return the words that truncation cuts, wholly or in part."""
        room, lost = max_tokens - 2, []
        for word in self._bpe.clean_fn(prompt).split():
            room -= len(self._bpe.encode(word))
            if room < 0:
                lost.append(word)
        return lost


@final
class ClipBpeSpec(TokenizerSpec):
    """CLIP's tokenizer, 49,408 tokens."""

    type: Literal["clip_bpe"] = "clip_bpe"
    pad_id: Annotated[int, Field(ge=0, lt=CLIP_VOCAB_SIZE)] = _CLIP_EOS
    """Token that fills up short prompts: 49407, the end token, for Stable Diffusion 1; 0 for 2 and the x4 upscaler."""

    def build(self) -> ClipBpe:
        """Build the tokenizer; its vocabulary is read when the first prompt comes."""
        return ClipBpe(self.pad_id)


@final
class Words(Tokenizer):
    """One token a word: lower-cased, split at everything that is no letter, looked up in a list."""

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self._ids = {word: _FIRST_WORD + index for index, word in enumerate(vocabulary)}
        self.vocab_size = _FIRST_WORD + len(self._ids)

    def encode(self, prompt: str, max_tokens: int) -> list[int]:
        """Return exactly `max_tokens` numbers; content that does not fit is cut, the end token never."""
        content = [self._ids.get(word, _UNKNOWN) for word in _LETTERS.findall(prompt.lower())]
        return _framed(content, max_tokens, bos=_BOS, eos=_EOS, pad=_PAD)

    def lost_words(self, prompt: str, max_tokens: int) -> list[str]:
        """Return the words that are not in the vocabulary or come too late, and the numerals, which are no words."""
        room, lost = max_tokens - 2, []
        for run in _LETTERS_OR_DIGITS.findall(prompt.lower()):
            parts = _LETTERS.findall(run)
            room -= len(parts)
            if room < 0 or parts != [run] or run not in self._ids:
                lost.append(run)
        return lost


def _are_words(vocabulary: tuple[str, ...]) -> tuple[str, ...]:
    for word in vocabulary:
        if _LETTERS.findall(word.lower()) != [word]:
            raise ValueError(f"{word!r} is no word: a word is lower-case letters and nothing else")
    if doubled := {word for word in vocabulary if vocabulary.count(word) > 1}:
        raise ValueError(f"words listed twice: {', '.join(sorted(doubled))}")
    return vocabulary


@final
class WordsSpec(TokenizerSpec):
    """A tokenizer for small encoders that knows a list of words and nothing else."""

    type: Literal["words"] = "words"
    vocabulary: Annotated[tuple[str, ...], Field(max_length=4096), AfterValidator(_are_words)] = ()
    """Known words, lower-case letters only; their order gives their numbers, so new ones go to the end."""

    def build(self) -> Words:
        """Build the tokenizer; numbers 0 to 3 are padding, start, end and unknown word."""
        return Words(self.vocabulary)
