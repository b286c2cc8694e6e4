"""The examples in docs/cascade.md, run with a cascade that is small enough."""

import re
from pathlib import Path
from typing import Any

import pytest
from small_parts import CASCADE, save_cascade, small_cascade

from lavie.document import write
from lavie.spec import dump
from lavie.specfile import load_spec
from lavie.stages import CascadeSpec
from lavie.video import read_video

DOCS = (Path(__file__).parents[2] / "docs" / "cascade.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds a spec of the name `cascade` and weights in `models`, and is the current folder."""
    save_cascade(small_cascade(), tmp_path / "models")
    (tmp_path / "small.yaml").write_text(write(CASCADE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code in PYTHON:
        exec(code.replace('"cascade"', '"small.yaml"'), {})
    assert read_video(folder / "star.mp4").frames.shape == (9, 64, 64, 3)
    assert capsys.readouterr().out == "5 64 64 torch.Size([1, 3, 1, 64, 64])\n"


def test_the_cascade_of_ones_own_loads(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text)
    spec = load_spec(tmp_path / "mine.yaml")
    assert isinstance(spec, CascadeSpec)
    assert [*spec.parts()] == ["base", "upscaling"]


def at(spec: Any, place: str) -> str:
    """Return a value of a spec as YAML spells it."""
    for key in place.split("."):
        spec = spec[key]
    return str(spec).lower()


def test_the_table_of_options_is_what_the_two_specs_say() -> None:
    rows = re.findall(r"^\| `([a-z_.]+): (\w+)`(?:, also of `(\w+)`)? \| `(\w+)` \|", DOCS, re.MULTILINE)
    ours, official = (dump(load_spec(name)) for name in ("cascade", "cascade-official"))
    assert len(rows) == 4
    for path, other, also, own in rows:
        for place in [path] + ([path.replace("interpolation", also)] if also else []):
            assert (at(ours, place), at(official, place)) == (own, other), place
