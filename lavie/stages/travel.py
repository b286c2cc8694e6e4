"""Prompts that change on the way through a video: segments of equal length, one text each."""

from collections.abc import Sequence

from lavie.errors import Fault, SpecError

THEN = ">>"
"""Stands between the texts of two segments."""


def segments(prompt: str) -> list[str]:
    """Return the texts of a prompt's segments, which share the video evenly; a text said twice lasts twice as long."""
    return [text.strip() for text in prompt.split(THEN)]


def text_at(prompt: str, place: float) -> str:
    """Return the text of the segment at a place of the video, from 0, its beginning, to 1, its end."""
    texts = segments(prompt)
    return texts[_index(place, len(texts))]


def check_seen(prompt: str, places: Sequence[float], stage: str) -> None:
    """Refuse a prompt with a segment that holds none of the places at which the network is told its text.

    Raises:
        SpecError: with both numbers and the remedy.
    """
    count = len(segments(prompt))
    missing = set(range(count)) - {_index(place, count) for place in places}
    if missing:
        shown = "the whole video at once" if len(places) == 1 else f"the video in {len(places)} windows"
        reason = f"has {count} segments, but the stage {stage} sees {shown} and would miss segment {min(missing) + 1}"
        raise SpecError([Fault("prompt", f"{reason}; give it coverage windows, more of them, or fewer segments")])


def _index(place: float, count: int) -> int:
    return min(max(int(place * count), 0), count - 1)
