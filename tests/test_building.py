"""Building: faults are told by their place, and what a spec built can be watched."""

from typing import Literal

import pytest
import torch
from packages import HOOK
from test_registry import module

import lavie.builtin
from lavie.blocks.base import DenoiserSpec, Site, TemporalLayer, TemporalSpec
from lavie.building import build, parts, stands_alone, watched
from lavie.errors import SpecError
from lavie.registry import Registry, hookimpl
from lavie.spec import Spec

SMALL = {"type": "unet", "channels": [32, 64], "attention": True, "norm": {"groups": 8}, "context_dim": 8}


class FailingSpec(TemporalSpec):
    type: Literal["failing"] = "failing"

    def build(self, site: Site) -> TemporalLayer | None:
        raise RuntimeError(f"no kernel for {site.channels} channels")


class Failing:
    @hookimpl
    def lavie_components(self) -> list[type[Spec]]:
        return [FailingSpec]


REGISTRY = Registry(lavie.builtin, Failing())


def refusal(**changes: object) -> str:
    spec = REGISTRY.load(DenoiserSpec, SMALL | changes)
    with pytest.raises(SpecError) as caught, torch.device("meta"):
        build(spec, REGISTRY)
    (fault,) = caught.value.faults
    return str(fault)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"transformer": {"num_heads": 5}}, "transformer.spatial: 32 channels cannot be split into 5 heads"),
        (
            {
                "transformer": {
                    "temporal": {"type": "attention", "position": {"type": "rope", "dim": 34}},
                    "num_heads": 1,
                }
            },
            "transformer.temporal.position: rope rotates 34 channels but a head has 32",
        ),
        ({"transformer": {"temporal": ["none", "failing"]}}, "transformer.temporal[1]: RuntimeError: no kernel for 64"),
        ({"after_level": "failing"}, "after_level: RuntimeError: no kernel for 32 channels (from Failing)"),
    ],
)
def test_what_does_not_fit_is_told_by_its_place_in_the_spec(changes: dict[str, object], expected: str) -> None:
    assert refusal(**changes).startswith(expected)


def test_parts_lists_every_spec_with_the_path_a_user_writes() -> None:
    spec = REGISTRY.load(DenoiserSpec, SMALL | {"resblock": ["inflated", "modulated"], "conditioners": ["pooled_text"]})
    paths = [path for path, _ in parts(spec)]
    expected = {"", "norm", "resblock[0]", "resblock[1]", "transformer", "transformer.temporal", "conditioners[0]"}
    assert expected <= set(paths)
    assert len(paths) == len(set(paths))


def test_watching_counts_what_each_part_builds_and_for_whom() -> None:
    spec = REGISTRY.load(DenoiserSpec, SMALL)
    with watched() as log, torch.device("meta"):
        build(spec, REGISTRY)
    build(spec, Registry(lavie.builtin))  # outside: not counted
    built = {path: log.built(part) for path, part in parts(spec)}
    num_transformers = 2 * 2 + 1 + 2 * 3
    assert len(built["transformer"]) == len(built["transformer.temporal"]) == num_transformers
    assert len(built[""]) == 1
    sites = [argument for each in built["transformer.temporal"] for argument in each.arguments]
    assert {site.channels for site in sites if isinstance(site, Site)} == {32, 64}
    assert all(isinstance(each.result, TemporalLayer) for each in built["transformer.temporal"])


def test_a_method_that_calls_its_parents_counts_once() -> None:
    class Child(FailingSpec):
        def build(self, site: Site) -> TemporalLayer | None:
            try:
                return super().build(site)
            except RuntimeError:
                return None

    spec = Child()
    with watched() as log:
        assert spec.build(Site(channels=8)) is None
    assert [each.result for each in log.built(spec)] == [None]
    assert not log.built(Child())


def test_a_failure_that_was_dealt_with_is_not_blamed_for_a_later_one() -> None:
    class Careful(FailingSpec):
        type: Literal["careful"] = "careful"  # type: ignore[assignment]
        first: TemporalSpec = FailingSpec()

        def build(self, site: Site) -> TemporalLayer | None:
            with pytest.raises(RuntimeError):
                self.first.build(site)
            raise ValueError("refused after all")

    spec = Careful()
    with watched() as log:
        with pytest.raises(ValueError, match="after all") as caught:
            spec.build(Site(channels=8))
        assert log.failed(caught.value, spec) == (spec, "")


def test_only_specs_that_need_no_host_stand_alone() -> None:
    spec = REGISTRY.load(DenoiserSpec, SMALL)
    alone = {path for path, part in parts(spec) if stands_alone(part)}
    assert "" in alone
    assert "transformer.temporal" not in alone


def test_a_component_of_a_plugin_is_told_with_its_package() -> None:
    source = """
from typing import Literal
from lavie import Spec, hookimpl
from lavie.blocks import TemporalSpec
class BadSpec(TemporalSpec):
    type: Literal["bad"] = "bad"
    def build(self, site):
        return 1 / 0
""" + HOOK.format(classes="BadSpec")
    registry = Registry(lavie.builtin, module("lavie-bad", source))
    spec = registry.load(DenoiserSpec, SMALL | {"transformer": {"temporal": "bad"}})
    with pytest.raises(SpecError, match=r"transformer\.temporal: ZeroDivisionError: .* \(from lavie-bad 1\.0\)"):
        build(spec, registry)
