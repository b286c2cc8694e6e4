"""The docs say what there is, and what they say runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lavie.builtin
from lavie.cli.app import VERBS
from lavie.document import parse
from lavie.plugins import Hooks
from lavie.registry import Registry

ROOT = Path(__file__).parents[1]
DOCS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
REGISTRY = Registry(lavie.builtin)


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS[name], re.MULTILINE | re.DOTALL)


def section(kind: str) -> str:
    """Return what docs/kinds.md says about a kind."""
    found = re.search(rf"^## {kind}\n(.*?)(?=^## |\Z)", DOCS["kinds.md"], re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


@pytest.mark.parametrize("hook", [name for name in vars(Hooks) if name.startswith("lavie_")])
def test_every_hook_is_documented(hook: str) -> None:
    assert f"`{hook}`" in DOCS["plugins.md"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_documented(verb: str) -> None:
    assert f"`lavie {verb}`" in DOCS["command-line.md"]


@pytest.mark.parametrize("kind", REGISTRY.kinds())
def test_every_kind_is_documented_with_its_base_class_and_exactly_its_components(kind: str) -> None:
    assert f"`{REGISTRY.kind(kind).__name__}.build(" in section(kind)
    assert set(re.findall(r"^\| `(\w+)` \|", section(kind), re.MULTILINE)) == set(REGISTRY.components(kind))


def test_every_kind_in_the_docs_exists() -> None:
    assert set(re.findall(r"^## (\w+)$", DOCS["kinds.md"], re.MULTILINE)) == set(REGISTRY.kinds())


@pytest.mark.parametrize("name", DOCS)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", DOCS[name])
    missing = [link for link in links if not (ROOT / "docs" / link).exists()]
    assert not missing


@pytest.mark.parametrize(
    "text", [pytest.param(text, id=text.splitlines()[0][:40]) for name in DOCS for text in blocks(name, "yaml")]
)
def test_yaml_in_the_docs_is_accepted(text: str) -> None:
    paragraphs = [text] if text.startswith("extends") else text.splitlines()  # alternatives stand below one another
    for paragraph in paragraphs:
        if not paragraph.startswith("#"):
            assert parse(paragraph, "docs").data


def test_the_examples_of_specs_run() -> None:
    for code in blocks("specs.md", "python"):
        exec(code, {})


def test_the_tutorial_makes_a_plugin_that_works(tmp_path: Path) -> None:
    """The blocks of docs/plugins.md are written to the files they name, and used."""
    layer, test, in_a_test = blocks("plugins.md", "python")
    (tmp_path / "lavie_pull.py").write_text(layer, encoding="utf-8")
    (tmp_path / "test_lavie_pull.py").write_text(test + "\n" + in_a_test, encoding="utf-8")
    (project,) = blocks("plugins.md", "toml")
    name, version = (re.search(rf'^{key} = "(.*)"', project, re.MULTILINE)[1] for key in ("name", "version"))  # type: ignore[index]
    (entry,) = re.findall(r"^\[project\.entry-points\.lavie\]\n(.*)$", project, re.MULTILINE)
    info = tmp_path / f"lavie_pull-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[lavie]\n" + entry.replace('"', "") + "\n", encoding="utf-8")
    code = (
        "import test_lavie_pull; test_lavie_pull.test_pull_keeps_the_contract_of_temporal_layers()\n"
        "from lavie.cli.app import run\n"
        "change = 'denoiser.transformer.temporal={type: pull, towards: first}'\n"
        "raise SystemExit(run(['check', 'base-tiny', '--set', change]))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "LAVIE_PLUGINS": "pull"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("base-tiny: ok (stage latent_diffusion")
