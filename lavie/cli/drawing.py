"""Trees of a spec and of the networks it builds, for the terminal."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from pydantic import BaseModel
from rich.text import Text
from rich.tree import Tree
from torch import Tensor, nn

from lavie.blocks.base import Conditioning, Site
from lavie.blocks.conditioning import ConcatConditioner
from lavie.building import Built, Log, watched
from lavie.cli.app import printable
from lavie.cli.meta import build_on_meta, networks, num_parameters
from lavie.faults import join_path
from lavie.plugins import kind_class
from lavie.registry import Registry
from lavie.spec import PerLevel, Spec, dump, spec_hash, type_of
from lavie.stages import LatentDiffusion, Request, Run, Stage


def draw(name: str, spec: Spec, registry: Registry, depth: int) -> Iterator[Tree]:
    """Yield a tree of the spec, then one for each network down to `depth` levels of modules."""
    spec = registry.load(kind_class(type(spec)), dump(spec))  # anew, so that no two places share one object
    with watched() as log:
        built_networks = [(path, build_on_meta(part, registry)) for path, part in networks(spec)]
    total = sum(num_parameters(network) for _, network in built_networks)
    root = Tree(_label(name, f"{spec.kind} {type_of(type(spec))}", f"{total:,} parameters, hash {spec_hash(spec)}"))
    _add_fields(root, spec, log, registry)
    yield root
    for path, network in built_networks if depth else ():
        yield _modules(path or name, network, depth)


def _add_fields(tree: Tree, spec: BaseModel, log: Log, registry: Registry) -> None:
    for field in type(spec).model_fields:
        if field != "type":
            for label, value in _values(field, getattr(spec, field)):
                if isinstance(value, Spec):
                    _add_fields(tree.add(_spec_label(label, value, log, registry)), value, log, registry)
                else:
                    tree.add(_label(label, _short(value)))


def _values(label: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a field holds: one value, or one per level or place if those are specs."""
    if isinstance(value, PerLevel) and not value.levels:
        yield from _values(label, value.everywhere)
    elif isinstance(value, PerLevel) and isinstance(value.levels[0], Spec):
        yield from ((join_path(label, level), part) for level, part in enumerate(value.levels))
        yield from [(f"{label}.mid", value.mid)] if value.mid is not None else []
    elif isinstance(value, PerLevel):
        mid = "" if value.mid is None else f", mid {_short(value.mid)}"
        yield label, f"{_short(value.levels)}{mid}"
    elif isinstance(value, tuple) and value and isinstance(value[0], Spec):
        yield from ((join_path(label, index), part) for index, part in enumerate(value))
    else:
        yield label, value


def _spec_label(label: str, spec: Spec, log: Log, registry: Registry) -> Text:
    if "type" not in type(spec).model_fields:
        return _label(label, "", _uses(log.built(spec)))
    return _label(label, type_of(type(spec)), _uses(log.built(spec)), str(registry.owner(spec)))


def _uses(built: list[Built]) -> str:
    """Tell how often something was built, how wide, and how many parameters all of it has."""
    modules = [each.result for each in built if isinstance(each.result, nn.Module)]
    sites = [argument for each in built for argument in each.arguments if isinstance(argument, Site)]
    said = [f"×{len(modules)}"] if len(modules) > 1 else []
    if widths := sorted({site.channels for site in sites}) if modules else []:
        said.append(f"at {', '.join(map(str, widths))} channels")
    if total := num_parameters(nn.ModuleList(modules)):
        said.append(f"{total:,} parameters")
    return ", ".join(said)


def _modules(name: str, network: nn.Module, depth: int) -> Tree:
    shapes = _shapes(network)
    root = Tree(_label(name, type(network).__name__, f"{num_parameters(network):,} parameters", shapes.get("", "")))
    _add_modules(root, network, "", depth, shapes)
    return root


def _add_modules(tree: Tree, module: nn.Module, path: str, depth: int, shapes: dict[str, str]) -> None:
    for name, child in module.named_children() if depth else ():
        below = f"{path}.{name}" if path else name
        numbers = f"{num_parameters(child):,}" if num_parameters(child) else ""
        branch = tree.add(_label(name, type(child).__name__, numbers, shapes.get(below, "")))
        # A list of modules is no level of its own: what it holds is what one wants to see.
        is_list = isinstance(child, nn.ModuleList | nn.ModuleDict)
        _add_modules(branch, child, below, depth if is_list else depth - 1, shapes)


def _shapes(network: nn.Module) -> dict[str, str]:
    """Run each part of a stage once on meta tensors and note the shape that each of its modules returns."""
    shapes: dict[str, str] = {}

    def note(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                shapes.setdefault(path, "×".join(map(str, output.shape)))

        return hook

    for path, module in network.named_modules():
        module.register_forward_hook(note(path))
    parts = network.parts().values() if isinstance(network, Stage) else ()
    for part in parts:
        try:
            _run_on_meta(part)
        except Exception as error:  # a part that needs real numbers, or inputs only its conditioners know
            logging.getLogger(__name__).info("no shapes: %s", error)
    return shapes


@torch.inference_mode()
def _run_on_meta(stage: Stage) -> None:
    assert isinstance(stage, LatentDiffusion)
    with torch.device("meta"):
        latent = torch.empty(Run(stage, [Request("")], stage.spec.shape()).size)
        context = stage.text_encoder(torch.empty(1, stage.text_encoder.max_tokens, dtype=torch.long))
        beside = [each for each in stage.denoiser.modules() if isinstance(each, ConcatConditioner)]
        inputs = {each.name: torch.empty(1, each.extra_channels, *latent.shape[2:]) for each in beside}
        level = {"noise_level": torch.zeros(1, dtype=torch.long)}
        stage.denoiser(latent, torch.zeros(1), Conditioning(context, inputs=inputs | level))
        stage.autoencoder.decode(latent)


def _label(name: str, what: str, *more: str) -> Text:
    """Return one line of a tree: the name, what stands there, and what else is known."""
    text = Text(printable(name), style="bold")
    if what:
        text.append(f": {printable(what)}" if name else printable(what), style="not bold")
    for each in filter(None, more):
        text.append(f"  {printable(each)}", style="not bold dim")
    return text


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        shown = ", ".join(map(_short, value[:12]))
        return f"[{shown}, … {len(value)} in all]" if len(value) > 12 else f"[{shown}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
