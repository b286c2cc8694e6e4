"""Prompts are made uniform, or refused with a reason and a place."""

import re
import string
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavie.errors import PromptError
from lavie.generation.prompts import MAX_CHARACTERS, MAX_FILE_BYTES, hash_of, normalise, read_prompts, shorten


@pytest.mark.parametrize(
    ("prompt", "uniform"),
    [
        ("", ""),
        (" \t\n ", ""),
        ("a  red\tcircle\r\nmoving left\n", "a red circle moving left"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u2003a\u00a0b\u0085c", "a b c"),
        ("👨\u200d👩\u200d👧 \u202eabc", "👨\u200d👩\u200d👧 \u202eabc"),
        ("../../x; rm -rf /", "../../x; rm -rf /"),
    ],
)
def test_white_space_and_composition_do_not_tell_prompts_apart(prompt: str, uniform: str) -> None:
    assert normalise(prompt) == uniform


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a\0b", "prompt: control character U+0000 at character 2"),
        ("\x1b[31mred", "prompt: control character U+001B at character 1"),
        ("red\x7f", "prompt: control character U+007F at character 4"),
        ("ab\ud83dc", "prompt: half of a surrogate pair U+D83D at character 3"),
        ("x" * (MAX_CHARACTERS + 1), "prompt: 10,001 characters; the longest prompt has 10,000"),
    ],
)
def test_unusable_prompts_are_refused_with_their_place(prompt: str, message: str) -> None:
    with pytest.raises(PromptError, match=re.escape(message)):
        normalise(prompt)


def test_the_longest_prompt_is_taken() -> None:
    assert normalise("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS


@given(st.text(st.characters(), max_size=50))
def test_any_text_becomes_uniform_once_or_is_refused(prompt: str) -> None:
    if any(unicodedata.category(each) in ("Cc", "Cs") and each not in "\t\n\r\x85" for each in prompt):
        with pytest.raises(PromptError, match=r"prompt: .* U\+[0-9A-F]{4} at character \d+; remove it"):
            normalise(prompt)
        return
    uniform = normalise(prompt)
    assert normalise(uniform) == uniform
    assert shorten(uniform).isprintable()
    assert len(shorten(uniform)) <= 60 * len("\\U0001f600") + 2
    assert set(hash_of(uniform, uniform)) <= set(string.hexdigits.lower())
    assert len(hash_of(uniform)) == 12


def test_hashes_tell_prompt_from_negative_prompt() -> None:
    assert len({hash_of("a b"), hash_of("a", "b"), hash_of("b", "a"), hash_of("", "a b"), hash_of("ab")}) == 5


def test_prompt_files_hold_one_prompt_per_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    content = "\ufeff# shapes\r\na red  circle\r\n\r\n   \n  # two\nein grüner Stern\na # is no comment\u2028here"
    path.write_bytes(content.encode())
    assert read_prompts(path) == ["a red circle", "ein grüner Stern", "a # is no comment here"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no prompt in it; write one per line"),
        (b"\xef\xbb\xbf# only this\n", "no prompt in it"),
        (b"ok\n\nbad\0\n", r"prompts\.txt:3: control character U\+0000 at character 4"),
        (b"ok\ncaf\xe9\n", r"prompts\.txt:2: not UTF-8 \(byte 0xE9\); save the file as UTF-8"),
        ("\ufeffa\n".encode("utf-16-le"), r"prompts\.txt:1: not UTF-8"),
        (b"x" * (MAX_CHARACTERS + 1), r"prompts\.txt:1: 10,001 characters"),
        (b"x\n" * (MAX_FILE_BYTES // 2 + 1), "larger than 16,777,216 bytes"),
    ],
)
def test_errors_in_prompt_files_name_file_and_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(PromptError, match=message):
        read_prompts(path)


def test_prompt_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.txt", tmp_path / "nul\0"):
        with pytest.raises(PromptError, match=rf"{re.escape(str(tmp_path))}.*: cannot be read: "):
            read_prompts(path)
