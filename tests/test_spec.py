"""Specs: strict, frozen, spelling-aware, per-level values, round trips."""

import pickle
import random
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from lavie.errors import SpecError
from lavie.faults import join_path, suggest
from lavie.registry import Registry, hookimpl
from lavie.spec import Count, PerLevel, Spec, Width, check_levels, dump, is_kind, spec_hash


class WheelSpec(Spec, ABC):
    kind: ClassVar[str] = "wheel"

    @abstractmethod
    def build(self) -> str: ...


class VehicleSpec(Spec, ABC):
    kind: ClassVar[str] = "vehicle"

    @abstractmethod
    def build(self) -> str: ...


class SpokedSpec(WheelSpec):
    type: Literal["spoked"] = "spoked"
    num_spokes: Count = 32
    """Spokes of the wheel."""

    def build(self) -> str:
        return "spoked"


class SolidSpec(WheelSpec):
    type: Literal["solid"] = "solid"

    def build(self) -> str:
        return "solid"


class FrameSpec(Spec):
    height: Annotated[float, Field(gt=0)]


class BicycleSpec(VehicleSpec):
    type: Literal["bicycle"] = "bicycle"
    frame: FrameSpec
    wheel: WheelSpec = SpokedSpec()
    wheels: PerLevel[WheelSpec] = PerLevel[WheelSpec](everywhere=SolidSpec())
    widths: PerLevel[Width] = PerLevel[Width](everywhere=2)
    spare: SpokedSpec | None = None
    gears: tuple[tuple[int, ...], ...] = ()

    @model_validator(mode="after")
    def _two_wheels(self) -> Self:
        check_levels("wheels", self.wheels, 2)
        return self

    def build(self) -> str:
        return "bicycle"


class Shop:
    @hookimpl
    def lavie_components(self) -> list[type[Spec]]:
        return [SpokedSpec, SolidSpec, BicycleSpec]


REGISTRY = Registry(Shop())


def bicycle(**fields: Any) -> BicycleSpec:
    spec = REGISTRY.load(VehicleSpec, {"type": "bicycle", "frame": {"height": 1}, **fields})
    assert isinstance(spec, BicycleSpec)
    return spec


def faults(**fields: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        bicycle(**fields)
    return [str(fault) for fault in caught.value.faults]


def test_a_kind_has_no_type_and_a_component_has_one() -> None:
    assert [is_kind(cls) for cls in (WheelSpec, SpokedSpec, FrameSpec, Spec)] == [True, False, False, False]


def test_a_name_a_mapping_and_an_instance_mean_the_same() -> None:
    one, two, three = bicycle(wheel="solid"), bicycle(wheel={"type": "solid"}), bicycle(wheel=SolidSpec())
    assert one == two == three
    assert one.wheel == SolidSpec()


def test_names_and_mappings_outside_a_registry_say_where_they_are_understood() -> None:
    with pytest.raises(ValidationError, match=r"Names and mappings need Registry\.load"):
        BicycleSpec(frame=FrameSpec(height=1.0), wheel="solid")  # type: ignore[arg-type]


def test_specs_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        bicycle().wheel = SolidSpec()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"wheel": {"type": "spoked", "num_spokes": 20}, "gears": [[1, 2], [3]]},
        {"wheels": ["solid", {"type": "spoked", "num_spokes": 7}], "widths": [1, 2, 3]},
        {"wheels": {"levels": ["solid", "spoked"], "mid": "solid"}, "widths": {"levels": [1], "mid": 9}},
        {"spare": {"num_spokes": 3}},
    ],
)
def test_a_dump_loads_back_to_an_equal_spec_with_the_same_hash(fields: dict[str, Any]) -> None:
    spec = bicycle(**fields)
    again = REGISTRY.load(VehicleSpec, dump(spec))
    assert again == spec
    assert spec_hash(again) == spec_hash(spec)
    assert hash(again) == hash(spec)


def test_the_hash_sees_every_field() -> None:
    hashes = {spec_hash(bicycle(**fields)) for fields in ({}, {"wheel": "solid"}, {"widths": 3}, {"spare": {}})}
    assert len(hashes) == 4
    assert all(len(each) == 12 for each in hashes)


def test_a_dump_begins_with_the_type_and_leaves_nothing_out() -> None:
    assert next(iter(dump(bicycle()))) == "type"
    assert dump(bicycle())["wheel"] == {"type": "spoked", "num_spokes": 32}


def test_per_level_values_answer_for_each_level_and_the_middle() -> None:
    everywhere, levels = bicycle(widths=5).widths, bicycle(widths=[1, 2, 3]).widths
    both = bicycle(widths={"levels": [1, 2], "mid": 9}).widths
    assert (everywhere.at(7), everywhere.at_mid()) == (5, 5)
    assert (levels.at(0), levels.at(2), levels.at_mid()) == (1, 3, 3)
    assert (both.at(1), both.at_mid()) == (2, 9)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"frame": {}}, "frame.height: missing, and it has no default"),
        ({"frame": {"height": "high"}}, "frame.height: must be a valid number (got 'high')"),
        ({"frame": {"height": True}}, "frame.height: must be a valid number (got True)"),
        ({"frame": {"height": float("nan")}}, "frame.height: must be a finite number (got nan)"),
        ({"widths": 10**9}, "widths: must be less than or equal to 65536 (got 1000000000)"),
        ({"widths": [1, 0]}, "widths[1]: must be greater than or equal to 1 (got 0)"),
        ({"widths": {"levels": [1], "mid": 0}}, "widths.mid: must be greater than or equal to 1 (got 0)"),
        ({"wheels": ["solid"]}, "wheels has 1 values for 2 levels"),
        ({"widths": []}, "widths: give one value for all levels, or a list of one for each level"),
        ({"widths": {"levels": [], "mid": 2}}, "widths: give one value for all levels"),
        ({"wheels": None}, "wheels: give one value for all levels"),
        ({"wheels": ["solid", {"type": "spoked", "num_spokes": 0}]}, "wheels[1].num_spokes: must be greater"),
        ({"frame": 3}, "frame: must be a mapping: FrameSpec (got 3)"),
        ({"wheel": 3}, "wheel: expected a wheel: a type name or a mapping with 'type', got 3."),
        ({"wheel": None}, "wheel: expected a wheel: a type name or a mapping with 'type', got nothing."),
        ({"wheel": {"num_spokes": 3}}, "wheel: 'type' is missing. Installed: solid, spoked."),
        ({"wheel": {"type": ["solid"]}}, "wheel: 'type' must be a name, got ['solid']."),
        ({"wheel": "spoke"}, "wheel: unknown wheel 'spoke'. Did you mean 'spoked'? Installed: solid, spoked."),
        ({"wheel": "bicycle"}, "wheel: unknown wheel 'bicycle'. It names a vehicle. Installed: solid, spoked."),
        (
            {"weel": 3},
            "weel: unknown key. Did you mean 'wheel'? Known: type, frame, wheel, wheels, widths, spare, gears.",
        ),
        ({"spare": {"num_spoke": 3}}, "spare.num_spoke: unknown key. Did you mean 'num_spokes'?"),
        ({"{0}": 3}, "{0}: unknown key."),
    ],
)
def test_a_fault_tells_path_wrong_and_remedy(fields: dict[str, Any], expected: str) -> None:
    found = faults(**fields)
    assert len(found) == 1
    assert found[0].startswith(expected)


def test_all_faults_are_told_at_once() -> None:
    found = faults(frame={"height": -1, "weight": 3}, wheel="x", widths=[0, 0])
    assert [line.split(":")[0] for line in found] == ["frame.height", "frame.weight", "wheel", "widths[0]", "widths[1]"]


def test_a_list_field_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match=r"ListSpec\.sizes: write tuple\[\.\.\., \.\.\.\] instead of list"):

        class ListSpec(Spec):
            sizes: list[int]


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(faults(frame={"height": "x" * 10_000})[0]) < 200


def test_something_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {"type": "bicycle"}
    loop["frame"] = loop
    with pytest.raises(SpecError):
        REGISTRY.load(VehicleSpec, loop)


def test_faults_survive_the_way_out_of_a_worker_process() -> None:
    with pytest.raises(SpecError) as caught:
        bicycle(frame={})
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.faults) == (str(caught.value), caught.value.faults)


def test_paths_read_as_they_are_written() -> None:
    assert join_path(join_path(join_path("", "a"), 1), "b") == "a[1].b"


def test_one_edit_away_the_right_name_is_suggested_first() -> None:
    known = [
        *("num_frames", "height", "width", "fps", "text_encoder", "autoencoder", "schedule", "prediction_type"),
        *("sampler", "guidance", "denoiser", "channels", "attention", "num_res_blocks", "context_dim", "transformer"),
        *("spatial", "temporal", "position", "bias", "num_buckets", "max_distance", "num_inference_steps"),
    ]
    rng = random.Random(0)
    right = sum(suggest(_typo(name, rng), known) == f" Did you mean {name!r}?" for name in known for _ in range(22))
    assert right / (22 * len(known)) >= 0.95


def test_of_equally_near_names_the_one_with_two_letters_swapped_is_suggested() -> None:
    assert suggest("ddmi", ["ddim", "ddpm", "euler"]) == " Did you mean 'ddim'?"
    assert suggest("ddmp", ["ddim", "ddpm", "euler"]) == " Did you mean 'ddpm'?"


def _typo(name: str, rng: random.Random) -> str:
    place, letter = rng.randrange(len(name)), rng.choice("abcdefghijklmnopqrstuvwxyz_")
    match rng.randrange(4):
        case 0:
            return name[:place] + name[place + 1 :]
        case 1:
            return name[:place] + letter + name[place:]
        case 2:
            return name[:place] + letter + name[place + 1 :]
        case _:
            swapped = name[place : place + 2][::-1]
            return name[:place] + swapped + name[place + 2 :]
