"""The one entry: round trip for all kinds, then what each kind promises."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

import lavie.builtin
from lavie.blocks.base import Site
from lavie.building import parts, stands_alone
from lavie.plugins import Owner, Plugin, hookimpl, kind_class
from lavie.registry import LAVIE, Registry
from lavie.spec import Spec, dump, spec_hash, type_of
from lavie.testing import coverage, data, layers, networks, sampling, stages
from lavie.testing.expect import expect

SITE = Site(channels=64, num_heads=2, context_dim=24, time_dim=48, norm_groups=8)
"""The place in a network that layers are built for unless told otherwise."""

_CHECKS: dict[str, Callable[[Any, Site, Mapping[str, Tensor]], None]] = {
    "temporal": layers.check_temporal,
    "spatial": layers.check_spatial,
    "resblock": layers.check_resblock,
    "position": layers.check_position,
    "bias": layers.check_bias,
    "conditioner": layers.check_conditioner,
    "denoiser": networks.check_denoiser,
    "autoencoder": networks.check_autoencoder,
    "text_encoder": networks.check_text_encoder,
    "stage": stages.check_stage,
    "source": stages.check_source,
    "coverage": coverage.check_coverage,
    "schedule": sampling.check_schedule,
    "guidance": sampling.check_guidance,
    "sampler": sampling.check_sampler,
    "tokenizer": data.check_tokenizer,
    "dataset": data.check_dataset,
    "metric": data.check_metric,
}


def check_component(spec: Spec, site: Site = SITE, inputs: Mapping[str, Tensor] | None = None) -> None:
    """Check everything that the kind of a component promises, on the CPU, in a second or so.

    `site` is where a layer is built into; `inputs` are the tensors that a conditioner reads, for a batch of 2 videos
    of 4 frames of 8×8.

    Raises:
        AssertionError: naming the component and the promise that it breaks.
    """
    _check_round_trip(spec)
    if spec.kind in _CHECKS:
        _CHECKS[spec.kind](spec, site, inputs or {})
    elif stands_alone(spec) and spec.kind not in {"recipe"}:
        spec.build()  # type: ignore[attr-defined]


class _Classes:
    """A plugin made of the component classes that a spec uses and lavie does not have."""

    def __init__(self, classes: list[type[Spec]]) -> None:
        self.classes = classes

    @hookimpl
    def lavie_components(self) -> list[type[Spec]]:
        return self.classes


def _check_round_trip(spec: Spec) -> None:
    own = Registry(lavie.builtin)
    used = {type(part) for _, part in parts(spec) if "type" in type(part).model_fields}
    foreign = sorted((cls for cls in used if not _is_own(cls, own)), key=lambda cls: cls.__qualname__)
    plugin = Plugin(Owner("the tested plugin"), _Classes(foreign))
    registry = Registry(Plugin(Owner(LAVIE), lavie.builtin), *([plugin] if foreign else []))
    expect(not registry.problems, spec, "; ".join(problem.cause for problem in registry.problems))
    data = dump(spec)
    expect(json.loads(json.dumps(data)) == data, spec, f"its dump is not plain JSON data: {data}")
    again = registry.load(kind_class(type(spec)), data)
    expect(again == spec, spec, f"does not load back from its own dump: {data} became {dump(again)}")
    expect(spec_hash(again) == spec_hash(spec), spec, "has another hash after a round trip")
    hash(spec)  # fields must be tuples, not lists: specs are keys
    if not any(field.is_required() for field in type(spec).model_fields.values()):
        bare = registry.load(kind_class(type(spec)), type_of(type(spec)))
        expect(bare == type(spec)(), spec, "its bare name means something else than its defaults")


def _is_own(cls: type[Spec], own: Registry) -> bool:
    found = own.components(cls.kind).get(type_of(cls))
    return found is not None and found.cls is cls
