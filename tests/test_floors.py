"""A module imports from lower floors only; packages of one floor do not import each other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "lavie"
FLOORS = [
    {
        "errors",
        "version",
        "faults",
        "watching",
        "spec",
        "plugins",
        "registry",
        "document",
        "tree",
        "specfile",
        "schema",
        "building",
    },
    {"atomic"},
    {"video"},
    {"contact_sheet"},
    {"blocks", "samplers"},
    {"weights"},
    {"stages"},
    {"data", "planning"},
    {"metrics"},
    {"training", "generation"},
    {"verification"},
    {"builtin"},
    {"testing", "cli"},
    {"__main__"},
]
"""From the ground up. Single modules of one floor may import each other; packages may not."""
FLOOR_OF = {name: floor for floor, names in enumerate(FLOORS) for name in names}
NO_TORCH = FLOORS[0] | {"__init__"}
BY_NAME_ONLY = {("registry", "builtin")}
"""The one upward step: the registry imports lavie's own plugin by its name, as it does everybody else's."""


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    """Return which part of lavie a file is: the package or module right below the root."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield everything a file imports, by statement or by name, at the top or inside a function, with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            module = node.module or ""
            names = [f"lavie.{alias.name}" for alias in node.names] if module == "lavie" else [module]
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            names = [
                word.value for word in ast.walk(node) if isinstance(word, ast.Constant) and isinstance(word.value, str)
            ]
        if id(node) not in checking:
            yield from ((name, node.lineno) for name in names)


def test_every_module_has_a_floor() -> None:
    homeless = {part_of(path) for path in modules()} - set(FLOOR_OF) - {"__init__"}
    assert not homeless, f"give these a floor in FLOORS: {', '.join(sorted(homeless))}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_lead_downwards(path: Path) -> None:
    here = part_of(path)
    if here == "__init__":
        return
    for name, line in imports(path):
        match = re.fullmatch(r"lavie\.(\w+)[\w.:]*", name)
        if not match or match[1] not in FLOOR_OF or match[1] == here or (here, match[1]) in BY_NAME_ONLY:
            continue
        there = match[1]
        both_modules = not (ROOT / here).is_dir() and not (ROOT / there).is_dir()
        allowed = FLOOR_OF[there] < FLOOR_OF[here] or (FLOOR_OF[there] == FLOOR_OF[here] and both_modules)
        assert allowed, f"{path}:{line} ({here}, floor {FLOOR_OF[here]}) imports {name} (floor {FLOOR_OF[there]})"


@pytest.mark.parametrize("path", [path for path in modules() if part_of(path) in NO_TORCH], ids=lambda path: path.stem)
def test_the_ground_floor_knows_no_torch(path: Path) -> None:
    heavy = {name for name, _ in imports(path) if name.split(".")[0] in {"torch", "einops", "jaxtyping", "numpy", "av"}}
    assert not heavy, f"{path} imports {', '.join(sorted(heavy))}"


def test_no_form_of_import_escapes(tmp_path: Path) -> None:
    source = (
        "import lavie.cli\nfrom lavie import web\nfrom lavie.training.trainer import Trainer\n"
        "def f():\n    from lavie.stages import base\n    importlib.import_module('lavie.data.shapes')\n"
        "    __import__('lavie.metrics')\n"
    )
    path = tmp_path / "m.py"
    path.write_text(source, encoding="utf-8")
    forms = {"lavie.cli", "lavie.web", "lavie.training.trainer", "lavie.stages", "lavie.data.shapes", "lavie.metrics"}
    assert {name for name, _ in imports(path)} == forms
