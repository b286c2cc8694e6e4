"""Prompts: made uniform, refused with a reason when unusable, read from files, and turned into short names."""

import hashlib
import unicodedata
from pathlib import Path

from lavie.errors import PromptError

MAX_CHARACTERS = 10_000
"""Longest prompt accepted, in characters: far beyond what any text encoder reads."""
MAX_FILE_BYTES = 16 * 2**20
"""Largest prompt file accepted, in bytes."""


def normalise(prompt: str, source: str = "prompt") -> str:
    """Return a prompt in Unicode form NFC, with every run of white space turned into one space.

    Two prompts that read the same thus give the same video and the same file name. An empty prompt stays empty: it
    asks for an unconditional video.

    Raises:
        PromptError: naming `source` and the position of the first unusable character, or the length.
    """
    if len(prompt) > MAX_CHARACTERS:
        raise PromptError(f"{source}: {len(prompt):,} characters; the longest prompt has {MAX_CHARACTERS:,}")
    for position, character in enumerate(prompt):
        if fault := _fault_of(character):
            raise PromptError(f"{source}: {fault} U+{ord(character):04X} at character {position + 1}; remove it")
    return " ".join(unicodedata.normalize("NFC", prompt).split())


def _fault_of(character: str) -> str:
    """Name what is wrong with a character, or return nothing: tabs and line ends are only white space."""
    category = unicodedata.category(character)
    if category == "Cs":
        return "half of a surrogate pair"
    if category == "Cc" and character not in "\t\n\r\x85":
        return "control character"
    return ""


def read_prompts(path: Path) -> list[str]:
    """Read one prompt per line from a UTF-8 file; blank lines and lines that start with # are left out.

    Raises:
        PromptError: if the file cannot be read or holds no prompt, or naming file and line of an unusable prompt.
    """
    prompts = []
    for number, line in enumerate(_lines(path), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            prompts.append(normalise(line, source=f"{path}:{number}"))
    if not prompts:
        raise PromptError(f"{path}: no prompt in it; write one per line")
    return prompts


def _lines(path: Path) -> list[str]:
    """Split at line feeds only, so that line numbers are those of an editor."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PromptError(f"{path}: cannot be read: {reason}") from None
    if len(data) > MAX_FILE_BYTES:
        raise PromptError(f"{path}: larger than {MAX_FILE_BYTES:,} bytes, the most a prompt file may have")
    try:
        return data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(
            f"{path}:{line}: not UTF-8 (byte 0x{data[error.start]:02X}); save the file as UTF-8"
        ) from None


def hash_of(prompt: str, negative_prompt: str = "", given: str = "") -> str:
    """Return twelve hexadecimal digits for a normalised prompt, its negative, and the hash of given frames, if any."""
    parts = (prompt, negative_prompt, given) if given else (prompt, negative_prompt)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def shorten(prompt: str, length: int = 60) -> str:
    """Return a prompt as a message shows it: in quotes, printable characters only, cut to about `length`."""
    cut = prompt if len(prompt) <= length else prompt[: length - 1] + "…"
    return repr(cut) if cut.isprintable() else ascii(cut)


__all__ = ["MAX_CHARACTERS", "hash_of", "normalise", "read_prompts", "shorten"]
