from typing import Any

import pytest
import torch

from lavie.errors import SpecError
from lavie.registry import Registry
from lavie.spec import dump
from lavie.training import TrainSpec
from lavie.training.randomness import Draws, derived
from lavie.training.recipe import differences, past


def test_a_recipe_survives_being_dumped_and_loaded(recipe: TrainSpec, registry: Registry) -> None:
    assert registry.load(TrainSpec, dump(recipe)) == recipe


def test_the_same_seed_gives_the_same_fresh_weights(recipe: TrainSpec) -> None:
    torch.manual_seed(1)
    first = recipe.build().stage.state_dict()
    torch.manual_seed(2)
    second = recipe.build().stage.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_building_leaves_the_global_random_state_alone(recipe: TrainSpec) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    recipe.build()
    assert torch.equal(torch.rand(1), expected)


def test_two_phases_of_one_name_are_refused(recipe_data: dict[str, Any], registry: Registry) -> None:
    phases = [recipe_data["phases"][0]] * 2
    with pytest.raises(SpecError, match="more than one is named autoencoder"):
        registry.load(TrainSpec, {**recipe_data, "phases": phases})


def test_a_misspelt_setting_is_refused_with_its_path(recipe_data: dict[str, Any], registry: Registry) -> None:
    phase = {**recipe_data["phases"][1], "text_dropuot": 0.1}
    with pytest.raises(SpecError, match=r"phases\[0\]\.text_dropuot: unknown key\. Did you mean 'text_dropout'"):
        registry.load(TrainSpec, {**recipe_data, "phases": [phase]})


def test_the_past_leaves_out_what_weights_do_not_depend_on(recipe: TrainSpec, registry: Registry) -> None:
    data = dump(recipe)
    other = dump(recipe)
    other["model"]["guidance"]["scale"] = 9.0
    other["phases"][0]["num_workers"] = 3
    other["phases"][0]["evaluation"]["every"] = 77
    other["phases"][2]["num_steps"] = 99
    other["checkpoints"]["every"] = 5
    assert past(data, 2) == past(other, 2)
    assert past(data, 3) != past(other, 3)


def test_differences_name_every_place_and_both_values() -> None:
    old = {"a": {"b": [1, 2]}, "c": "same", "gone": 1}
    new = {"a": {"b": [1, 3]}, "c": "same", "come": 2}
    assert [str(fault) for fault in differences(old, new)] == [
        "a.b[1]: was 2 and is now 3",
        "gone: was 1 and is now None",
        "come: was None and is now 2",
    ]


def test_draws_depend_on_seed_phase_step_and_purpose() -> None:
    def first(*args: Any, purpose: str = "noise") -> float:
        return float(torch.rand(1, generator=Draws(*args).generator(purpose)))

    base = first(0, "p", 0)
    assert first(0, "p", 0) == base
    assert base not in {first(1, "p", 0), first(0, "q", 0), first(0, "p", 1), first(0, "p", 0, purpose="data")}


def test_derived_numbers_tell_strings_from_numbers_and_fit_a_seed() -> None:
    assert derived(1, "2") != derived("1", 2)
    assert all(0 <= derived(seed) < 2**63 for seed in range(1000))
