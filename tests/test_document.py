"""The gate for YAML: small, safe, exact about what it refuses, and where."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavie.document import MAX_BYTES, parse, write
from lavie.errors import SpecError

ODD_TEXTS = ["1e3", "08", "no", "on", "1:30", "0x1F", "~", "null", "True", "-", ".5", "1_000", "2020-01-01", "\x85", ""]
KEYS = st.text(min_size=1, max_size=10).filter(str.isprintable)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text() | st.sampled_from(ODD_TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


def refusal(text: str | bytes) -> str:
    with pytest.raises(SpecError) as caught:
        parse(text, "f.yaml")
    return str(caught.value)


@settings(derandomize=True, max_examples=60, deadline=None, database=None)
@given(st.dictionaries(KEYS, VALUES))
def test_what_is_written_is_read_back_the_same(data: dict[str, Any]) -> None:
    assert parse(write(data), "f.yaml").data == data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("012", 12),
        ("1e3", 1000.0),
        ("1.0e-4", 1e-4),
        ("+3", 3),
        ("-.5", -0.5),
        ("1:30", "1:30"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("~", None),
        ("", None),
        ("'null'", "null"),
        ('"1"', "1"),
        ("9007199254740992", 2**53),
        ('{"a": [1, 2.5, {"b": null}], "c": "x\\n\\u00e9"}', {"a": [1, 2.5, {"b": None}], "c": "x\né"}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: Any) -> None:
    found = parse(f"a: {text}", "f.yaml").data["a"]
    assert (type(found), found) == (type(value), value)


def test_json_is_accepted() -> None:
    assert parse('{"type": "unet", "channels": [320, 640], "attention": true}', "f.json").data["attention"] is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 2\n  c: 3\n", "f.yaml:4: duplicate key 'c', already given on line 3"),
        ("a: 1\nb: &x 2\n", "f.yaml:2: anchor &x: anchors are not accepted; write the value out"),
        ("a: *x", "f.yaml:1: alias *x: aliases are not accepted; write the value out"),
        ("a: &a [*a]", "f.yaml:1: anchor &a"),
        ("a: !!python/object/apply:os.system [ls]", "f.yaml:1: tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("!spec {a: 1}", "f.yaml:1: tag !spec: tags are not accepted"),
        ("a: 1\n---\nb: 1", "f.yaml:2: a second document begins; one is expected"),
        ("", "f.yaml:1: the document is empty"),
        ("# nothing\n", "the document is empty"),
        ("? [1]\n: 2", "f.yaml:1: a key must be a name, not a collection"),
        ("{'': 1}", "f.yaml:1: a key is a printable name of 1 to 256 characters"),
        ('{"\\e[31m": 1}', "f.yaml:1: a key is a printable name"),
        (f"{'k' * 300}: 1", "f.yaml:1: a key is a printable name"),
        ("a: 9007199254740993", "f.yaml:1: 9007199254740993 is beyond ±2^53"),
        (f"a: {'9' * 5000}", "f.yaml:1: a number of 5000 characters; at most 64 are read"),
        ("a: .nan", "f.yaml:1: .nan is not a finite number"),
        ("a: 1e999", "f.yaml:1: 1e999 is not a finite number"),
        ("a: [1, 2", "not valid YAML"),
        ("a: b: c", "f.yaml:1: not valid YAML: mapping values are not allowed"),
        ("a: 1\n\tb: 2", "f.yaml:2: not valid YAML"),
        ("a: \x07", "f.yaml: not valid YAML: "),
        (b"a: \xff", "f.yaml: not UTF-8 text: byte 0xff at 3"),
        ("a: \ud800", "f.yaml: not UTF-8 text"),
        ("[" * 40 + "]" * 40, "f.yaml:1: nested deeper than 32 levels"),
        ("#" * (MAX_BYTES + 1), f"f.yaml: {MAX_BYTES + 1} bytes; at most {MAX_BYTES} are read"),
        ("- " * 100_000, "f.yaml:1: nested deeper than 32 levels"),
        ("{" * 100_000, "f.yaml:1: "),
    ],
)
def test_a_refusal_names_file_line_and_fault(text: str | bytes, message: str) -> None:
    found = refusal(text)
    assert message in found
    assert len(found) < 400


def test_the_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavie.document.MAX_NODES", 20)
    assert len(parse("[" + "1," * 19 + "]", "f.yaml").data) == 19
    assert refusal("[" + "1," * 20 + "]") == "f.yaml:1: more than 20 values"


def test_every_node_knows_its_line() -> None:
    document = parse("a:\n- 1\n- b: 2\n  c:\n    d: 3\n", "f.yaml")
    assert document.where(("a", 1, "c", "d")) == "f.yaml:5"
    assert document.where(("a", 0)) == "f.yaml:2"
    assert document.where(("a", 1, "x", "y")) == "f.yaml:3"


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(st.binary(max_size=60) | st.text(alphabet="a:-[]{}&*!?|>'\"%@`#,\n\t 01.e~\\", max_size=60))
def test_any_bytes_are_read_or_refused_and_nothing_else(raw: bytes | str) -> None:
    with suppress(SpecError):
        assert parse(raw, "f.yaml").source == "f.yaml"
