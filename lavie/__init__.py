"""Small composable parts for cascaded text-to-video latent diffusion.

Importing this package imports neither torch nor any plugin: each name below is fetched when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavie.errors import LavieError, PluginError, PromptError, SpecError, VideoError, WeightsError
    from lavie.generation.api import generate
    from lavie.generation.generated import GeneratedVideo
    from lavie.plugins import hookimpl
    from lavie.registry import Registry, installed
    from lavie.spec import PerLevel, Spec, dump, spec_hash
    from lavie.specfile import load_spec
    from lavie.stages.base import Request
    from lavie.stages.loading import load_stage

__all__ = [
    "GeneratedVideo",
    "LavieError",
    "PerLevel",
    "PluginError",
    "PromptError",
    "Registry",
    "Request",
    "Spec",
    "SpecError",
    "VideoError",
    "WeightsError",
    "__version__",
    "dump",
    "generate",
    "hookimpl",
    "installed",
    "load_spec",
    "load_stage",
    "spec_hash",
]

_HOMES = {
    "lavie.generation.api": ("generate",),
    "lavie.errors": ("LavieError", "PluginError", "PromptError", "SpecError", "VideoError", "WeightsError"),
    "lavie.generation.generated": ("GeneratedVideo",),
    "lavie.plugins": ("hookimpl",),
    "lavie.registry": ("Registry", "installed"),
    "lavie.spec": ("PerLevel", "Spec", "dump", "spec_hash"),
    "lavie.specfile": ("load_spec",),
    "lavie.stages.base": ("Request",),
    "lavie.stages.loading": ("load_stage",),
}
"""Where each public name lives."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("lavie.version").lavie_version()
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'lavie' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
