import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavie.blocks.tokenizer import ClipBpe, ClipBpeSpec, Words, WordsSpec

WORDS = WordsSpec(vocabulary=("a", "red", "circle", "moves"))
PROMPTS = st.text(alphabet=st.sampled_from("a red circle, moves 2 été\n-_<>"), max_size=60)


@pytest.fixture(scope="module")
def words() -> Words:
    return WORDS.build()


@pytest.fixture(scope="module")
def bpe() -> ClipBpe:
    return ClipBpeSpec().build()


def test_words_are_numbered_in_order_after_the_special_tokens(words):
    assert words.encode("a red circle moves", 8) == [1, 4, 5, 6, 7, 2, 0, 0]
    assert words.vocab_size == 8


def test_case_and_punctuation_do_not_matter(words):
    assert words.encode("A red-circle, moves!", 8) == words.encode("a red circle moves", 8)


def test_an_unknown_word_gets_its_own_token(words):
    assert words.encode("a blue circle", 6) == [1, 4, 3, 6, 2, 0]


def test_a_long_prompt_is_cut_before_the_end_token(words):
    assert words.encode("a red circle moves", 4) == [1, 4, 5, 2]


def test_unknown_words_late_words_and_numerals_are_lost(words):
    assert words.lost_words("a red circle", 5) == []
    assert words.lost_words("2 blue circles: a red Circle moves", 7) == ["2", "blue", "circles", "moves"]


@pytest.mark.parametrize("word", ["Red", "two words", "x2", "", "snake_case", "it's"])
def test_what_the_splitting_would_never_produce_is_no_vocabulary(word):
    with pytest.raises(ValueError, match="is no word"):
        WordsSpec(vocabulary=("fine", word))


def test_a_word_listed_twice_is_refused():
    with pytest.raises(ValueError, match="words listed twice: red"):
        WordsSpec(vocabulary=("red", "a", "red"))


def test_clip_tokens_are_the_published_numbers(bpe):
    assert bpe.encode("a photo of a cat", 9) == [49406, 320, 1125, 539, 320, 2368, 49407, 49407, 49407]
    assert bpe.encode("", 3) == [49406, 49407, 49407]


def test_the_padding_token_is_the_specs():
    assert ClipBpeSpec(pad_id=0).build().encode("cat", 5) == [49406, 2368, 49407, 0, 0]


def test_a_word_cut_by_truncation_is_lost_even_in_part(bpe):
    long = "antidisestablishmentarianism"
    assert len(bpe.encode(long, 77)) == 77
    assert bpe.lost_words(f"a cat {long}", 77) == []
    assert bpe.lost_words(f"a cat {long} dog", 6) == [long, "dog"]


@pytest.mark.parametrize("spec", [WORDS, ClipBpeSpec(pad_id=0)])
@given(prompt=PROMPTS, max_tokens=st.integers(3, 20))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_prompt_always_fills_its_tokens_and_has_one_end(spec, prompt, max_tokens):
    tokenizer = spec.build() if isinstance(spec, WordsSpec) else BPE
    ids = tokenizer.encode(prompt, max_tokens)
    end = 2 if isinstance(spec, WordsSpec) else 49407
    assert len(ids) == max_tokens
    assert ids.count(end) == 1
    assert set(ids[ids.index(end) + 1 :]) <= {0}
    assert all(0 <= each < tokenizer.vocab_size for each in ids)


@given(prompt=PROMPTS, max_tokens=st.integers(3, 20))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_clip_loses_words_exactly_when_it_cuts_tokens(prompt, max_tokens):
    whole = BPE.encode(prompt, 200)
    assert bool(BPE.lost_words(prompt, max_tokens)) == (whole.index(49407) >= max_tokens)


BPE = ClipBpeSpec(pad_id=0).build()
