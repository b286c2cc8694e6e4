"""`lavie convert`: published weights to a folder of lavie, and back."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from lavie.cli.app import DONE, UsageError, Whole, say

if TYPE_CHECKING:
    from lavie.spec import Spec
    from lavie.weights.conversion import Converted
    from lavie.weights.source import Contents, Holding, Part

_SHOWN = 5


def convert(
    *sources: Path,
    output: Path,
    spec: str | None = None,
    part: Annotated[list[str] | None, Parameter(show_default=False)] = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", show_default=False)] = None,
    inflate: bool = False,
    seed: Annotated[Whole, Parameter(validator=Number(gte=0, lt=2**63))] = 0,
    to: Literal["official", "diffusers", "ldm"] | None = None,
    verbose: bool = False,
    overwrite: bool = False,
) -> int:
    """Turn published weights into a folder of lavie, or such a folder into published files.

    Reads folders of diffusers, .safetensors files, and .pt, .ckpt or .bin files, these in a process of their own under
    limits; what a file holds is seen from its content. Says of every part how many tensors went where and what was
    left over. What fits only by half is refused, and then nothing is written.

    Parameters
    ----------
    sources
        Files or folders with weights. With --to: one folder of lavie.
    output
        Folder to write. With --to official or ldm: a file, by its name .safetensors, .pt or .ckpt.
    spec
        Name of a shipped spec, or path of a spec file, that the weights are for.
    part
        Take a part from here: denoiser=PATH, autoencoder=PATH or text_encoder=PATH. May be given several times.
    settings
        Change a value of the spec first: path=value. May be given several times.
    inflate
        Take the denoiser from an image network; temporal parts start fresh and add nothing at first.
    seed
        Draws the fresh weights of --inflate.
    to
        Write published files instead: official is LaVie's denoiser alone, diffusers a folder, ldm a single file.
    verbose
        Print a line for every tensor.
    overwrite
        Replace what is at --output: a weights folder of lavie, or a file.
    """
    if to is not None:
        if spec or part or settings or inflate or len(sources) != 1:
            raise UsageError("--to takes one folder of lavie and --output; the folder knows its spec")
        return _write_back(sources[0], output, to, verbose, overwrite)
    if spec is None:
        raise UsageError("name the spec that the weights are for, as in --spec base, or say --to what they become")
    _check_output(output, overwrite)
    from lavie.registry import installed
    from lavie.specfile import load_spec
    from lavie.weights.conversion import write
    from lavie.weights.source import PARTS

    stage = load_spec(spec, installed(), settings or (), "stage")
    if missing := [name for name in PARTS if not hasattr(stage, name)]:
        raise UsageError(f"{spec} has no {missing[0]}, so no weights can be converted for it")
    with ExitStack() as stack:
        contents, holdings = _choose(sources, _chosen(part or ()), stack)
        converted = _fit(contents, holdings, stage, seed if inflate else None, verbose)
        write(converted, stage, output, overwrite=overwrite)
    if absent := [name for name in PARTS if name not in holdings]:
        say(f"not converted: {', '.join(absent)}; lavie generate needs all parts in one folder")
    say(str(output))
    return DONE


def _choose(
    sources: Sequence[Path], chosen: "dict[Part, Path]", stack: ExitStack
) -> "tuple[list[Contents], dict[Part, Holding]]":
    """Read all sources, and settle which part comes from which."""
    from lavie.weights.conversion import choose
    from lavie.weights.source import read_source

    contents = [read_source(source, stack) for source in sources]
    by_hand = {name: read_source(path, stack) for name, path in chosen.items()}
    holdings = choose(contents, by_hand)
    if not holdings:
        raise UsageError("name at least one file or folder with weights")
    return [*contents, *by_hand.values()], holdings


def _fit(
    contents: "Sequence[Contents]", holdings: "dict[Part, Holding]", stage: "Spec", seed: int | None, verbose: bool
) -> "list[Converted]":
    """Fit the parts to the spec and say where everything went; with a seed, the denoiser is inflated."""
    from lavie.weights.conversion import convert

    converted = convert(holdings, stage, image=seed is not None, seed=seed or 0)
    for each in converted:
        _report(each, verbose)
    for source in contents:
        for unused in [each.part for each in source.holdings if each is not holdings[each.part]]:
            say(f"{source.path}: its {unused} is not used")
        if source.left_over:
            say(f"{source.path}: {len(source.left_over)} left over that belong to no part")
            _list(source.left_over, verbose)
    return converted


def _chosen(given: Sequence[str]) -> "dict[Part, Path]":
    from lavie.weights.source import PARTS

    chosen: dict[Part, Path] = {}
    for text in given:
        name, separator, path = text.partition("=")
        part = next((each for each in PARTS if each == name), None)
        if part is None or not separator or not path:
            raise UsageError(f"--part {text!r}: write one of {', '.join(f'{each}=PATH' for each in PARTS)}")
        if part in chosen:
            raise UsageError(f"--part {part} is given twice")
        chosen[part] = Path(path)
    return chosen


def _check_output(output: Path, overwrite: bool) -> None:
    from lavie.weights.files import MANIFEST

    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists already; --overwrite replaces it")
    if output.exists() and not (output / MANIFEST).is_file():
        raise UsageError(f"{output} is no weights folder of lavie, so it is not replaced; choose another --output")


def _report(each: "Converted", verbose: bool) -> None:
    """Say where the tensors of a part went."""
    from lavie.weights.layouts import DESCRIPTIONS

    holding, reading = each.holding, each.reading
    under = f", under {holding.container!r}" if holding.container else ""
    counts = [f"{len(reading.places)} tensors read"]
    counts += [f"{len(reading.constants)} constants compared"] * bool(reading.constants)
    counts += [f"{len(each.fresh)} start fresh"] * bool(each.fresh)
    counts += [f"{len(reading.left_over)} left over"]
    say(f"{holding.part}: {holding.path} ({DESCRIPTIONS[holding.layout]}{under}): {', '.join(counts)}")
    if verbose:
        for key, places in reading.places.items():
            say(f"  {holding.prefix}{key} -> {', '.join(places)} {[*holding.tensors[key].shape]}")
        for key in reading.constants:
            say(f"  {holding.prefix}{key} = what the network computes")
        for key in each.fresh:
            say(f"  (fresh) -> {key} {[*each.state[key].shape]}")
    _list({f"{holding.prefix}{key}": why for key, why in reading.left_over.items()}, verbose)


def _list(left_over: Mapping[str, str], verbose: bool) -> None:
    items = [*left_over.items()]
    for key, why in items if verbose else items[:_SHOWN]:
        say(f"  left over: {key}: {why}")
    if not verbose and len(items) > _SHOWN:
        say(f"  ... and {len(items) - _SHOWN} more; --verbose lists them")


def _write_back(
    folder: Path, output: Path, to: Literal["official", "diffusers", "ldm"], verbose: bool, overwrite: bool
) -> int:
    from lavie.registry import installed
    from lavie.stages import StageSpec
    from lavie.weights import export
    from lavie.weights.files import read_manifest

    if output.exists() and (not overwrite or output.is_dir()):
        hint = "choose another --output" if output.is_dir() else "--overwrite replaces it"
        raise UsageError(f"{output} exists already; {hint}")
    spec = installed().load(StageSpec, read_manifest(folder).get("spec"), str(folder))  # type: ignore[type-abstract]
    parts = export.export(folder, spec, to)
    for each in parts:
        say(f"{each.part}: {len(each.places)} tensors of lavie, {len(each.tensors)} written")
        if verbose:
            for own, other in each.places.items():
                say(f"  {own} -> {other}")
    if to == "diffusers":
        export.write_folder(parts, spec, output)
    else:
        export.write_file(parts, output, to)
    say(str(output))
    return DONE
