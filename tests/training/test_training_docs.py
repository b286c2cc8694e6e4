"""What docs/training.md shows is accepted and works."""

import re
from pathlib import Path
from typing import Any

from lavie import builtin
from lavie.plugins import hookimpl
from lavie.registry import Registry
from lavie.spec import Spec
from lavie.specfile import load_spec
from lavie.training import Trainer, TrainSpec

DOCS = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


def test_the_recipe_is_accepted(tmp_path: Path, registry: Registry) -> None:
    (recipe,) = blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(recipe)
    spec = load_spec(tmp_path / "recipe.yaml", registry, kind="recipe")
    assert isinstance(spec, TrainSpec)
    assert [phase.name for phase in spec.phases] == ["autoencoder", "text_to_image", "joint"]


def test_the_shipped_recipe_is_accepted_and_its_model_is_the_shipped_one(registry: Registry) -> None:
    spec = load_spec("train-base-tiny", registry, kind="recipe")
    assert isinstance(spec, TrainSpec)
    assert spec.model == load_spec("base-tiny", registry)


def test_options_in_the_text_exist() -> None:
    help_text = (Path(__file__).parents[1] / "cli" / "help" / "train.txt").read_text(encoding="utf-8")
    options = set(re.findall(r"(?<!\w)--[a-z][a-z-]*", DOCS)) - {"--weights"}
    assert options
    assert {option for option in options if option not in help_text} == set()


def test_the_phase_works(recipe_data: dict[str, Any], run_folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(blocks("python")[1], names)

    class Plugin:
        @hookimpl
        def lavie_components(self) -> list[type[Spec]]:
            return [names["ReconstructionSpec"]]

    registry = Registry(builtin, Plugin())
    phase = {"type": "reconstruction", "name": "own", "num_steps": 2, "data": recipe_data["phases"][2]["clips"]}
    recipe = registry.load(TrainSpec, {**recipe_data, "phases": [phase]})
    Trainer(recipe, run_folder).run()
    assert (run_folder / "weights" / "model.safetensors").is_file()
