"""`lavie check`: validate spec files, and build them without memory."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated

from cyclopts import Parameter

from lavie.building import build, stands_alone
from lavie.cli.app import BAD_INPUT, DONE, UsageError, complain, say
from lavie.errors import Fault, SpecError
from lavie.registry import Registry, installed
from lavie.spec import Spec, spec_hash, type_of
from lavie.specfile import load_spec


def check(
    *specs: str,
    settings: Annotated[list[str] | None, Parameter(name="--set")] = None,
    kind: str | None = None,
) -> int:
    """Say what is wrong with spec files, fault by fault.

    Each spec is read, resolved, and built without memory for weights. A good one gets a line with its number of
    parameters. A bad one gets a line for every fault, with its file, line and path, and the exit code is 2.

    Parameters
    ----------
    specs
        Names of shipped specs, or paths of spec files.
    settings
        Change a value of every spec first: path=value. May be given several times.
    kind
        Kind of component that the files describe; found from their type if left out.
    """
    if not specs:
        raise UsageError("name at least one spec, such as base-tiny")
    registry = installed()
    return max(_check(name, settings or (), kind or "", registry) for name in specs)


def _check(name: str, settings: Sequence[str], kind: str, registry: Registry) -> int:
    try:
        spec = load_spec(name, registry, settings, kind)
        total = _build(spec, registry)
    except SpecError as error:
        for fault in error.faults:
            complain(str(fault) if fault.where else f"{error.source or name}: {fault}")
        return BAD_INPUT
    numbers = f"{total:,} parameters, " if total else ""
    say(f"{name}: ok ({spec.kind} {type_of(type(spec))}, {numbers}hash {spec_hash(spec)})")
    return DONE


def _build(spec: Spec, registry: Registry) -> int:
    """Build every network of a spec, and the spec itself; return the number of parameters.

    Raises:
        SpecError: with the faults of all networks.
    """
    from lavie.cli.meta import build_on_meta, meta, networks, num_parameters

    faults: list[Fault] = []
    total = 0
    found = list(networks(spec))
    for path, part in found:
        try:
            total += num_parameters(build_on_meta(part, registry))
        except SpecError as error:
            faults += [fault.below(path) for fault in error.faults]
    if faults:
        raise SpecError(faults)
    if stands_alone(spec) and [path for path, _ in found] != [""]:
        with meta() if found else nullcontext():
            build(spec, registry)
    return total
