"""Prompts beyond a small vocabulary are answered with what is known."""

from pathlib import Path

import pytest
from small_model import small_registry, small_spec

from lavie.data.shapes import ShapesSpec
from lavie.errors import PromptError
from lavie.generation.vocabulary import check_words, known_words
from lavie.spec import Spec
from lavie.specfile import load_spec


@pytest.fixture(scope="module")
def tiny() -> Spec:
    return load_spec("base-tiny", small_registry())


def lost(prompt: str, spec: Spec) -> list[str]:
    return [word for word in prompt.lower().split() if word not in known_words(spec)]


def test_the_embedded_model_names_unknown_words_the_nearest_ones_and_its_world(tiny: Spec) -> None:
    prompt = "a pink circel dancing"
    with pytest.raises(PromptError) as caught:
        check_words(prompt, lost(prompt, tiny), tiny, "base-tiny")
    answer = str(caught.value)
    assert "base-tiny does not know 'pink', 'circel', 'dancing' in the prompt 'a pink circel dancing'." in answer
    assert "'circel' → circle or circles" in answer
    for line in ("colours      red, green", "shapes       circle,", "motions      moving left,", "backgrounds  black,"):
        assert line in answer
    example = answer.rpartition('For example: "')[2].rstrip('"')
    assert check_words(example, lost(example, tiny), tiny, "base-tiny") == ""


def test_every_caption_of_the_world_is_known(tiny: Spec) -> None:
    world = ShapesSpec(height=16, width=16, num_frames=2).build()
    for index in range(30):
        caption = world.clip(index).caption
        assert check_words(caption, lost(caption, tiny), tiny, "base-tiny") == ""


def test_other_vocabularies_are_listed(tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    with pytest.raises(PromptError, match=r"It knows: a, red, blue, circle, star, moving\."):
        check_words("a green star", ["green"], spec, "small")


def test_pictures_and_symbols_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    for prompt in ("🙂", "a red ★", "red + blue"):
        with pytest.raises(PromptError, match="does not know"):
            check_words(prompt, [], small_spec(tmp_path), "small")
    assert check_words("a red circle, moving. (a star!)", [], small_spec(tmp_path), "small") == ""


def test_what_stands_between_segments_is_no_symbol(tmp_path: Path) -> None:
    assert check_words("a red star >> a star", [], small_spec(tmp_path), "small") == ""
    with pytest.raises(PromptError, match="does not know '>'"):
        check_words("a red star > a star", [], small_spec(tmp_path), "small")


def test_words_that_are_only_cut_off_are_a_warning(tmp_path: Path) -> None:
    warning = check_words("a star " * 9, ["star", "a", "star"], small_spec(tmp_path), "small")
    assert warning.endswith("is longer than small reads; cut off: 'star', 'a', 'star'")


def test_encoders_that_read_any_text_refuse_nothing(tmp_path: Path) -> None:
    spec = small_spec(tmp_path, "text_encoder=any_text")
    assert known_words(spec) == ()
    assert check_words("🙂 ünïcode", [], spec, "any") == ""
    assert "cut off: 'end'" in check_words("very long end", ["end"], spec, "any")


def test_answers_stay_short_and_printable(tiny: Spec) -> None:
    words = ["x" * 5000, "\u202eabc", *(f"w{'x' * i}" for i in range(500))]
    with pytest.raises(PromptError) as caught:
        check_words(" ".join(words), words, tiny, "base-tiny")
    assert len(str(caught.value)) < 2500
    assert str(caught.value).replace("\n", "").isprintable()
