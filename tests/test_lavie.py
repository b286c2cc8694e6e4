"""`import lavie` is light, and knows all its public names."""

import subprocess
import sys
from pathlib import Path

import pytest

import lavie

ROOT = Path(__file__).parents[1]


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules in a fresh process after some code has run."""
    code += "\nimport sys\nprint(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(done.stdout.split())


def test_importing_lavie_imports_neither_torch_nor_pydantic() -> None:
    assert not {"torch", "pydantic", "pluggy", "numpy", "av"} & loaded_by("import lavie")


@pytest.mark.parametrize("name", lavie.__all__)
def test_every_public_name_can_be_fetched(name: str) -> None:
    assert getattr(lavie, name) is not None
    assert name in dir(lavie)


def test_specs_can_be_read_without_torch() -> None:
    assert "torch" not in loaded_by("from lavie import Registry, Spec, hookimpl, load_spec\nimport lavie.schema")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lavie' has no attribute 'nothing'"):
        _ = lavie.nothing
