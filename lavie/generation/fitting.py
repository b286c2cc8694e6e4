"""A model that keeps below a limit of memory: planned before it is loaded."""

import gc
from dataclasses import replace

import torch

from lavie.generation.model import DTYPES, Economy, Model
from lavie.planning import Plan, Planner, Setting, format_size
from lavie.planning.process import give_memory_back, trim
from lavie.stages import Given


def _setting_of(model: Model) -> Setting:
    """Return what a model runs, as plans know it."""
    return Setting(model.spec, torch.device(model.device), DTYPES[model.dtype], model.economy.in_turn)


def fitted(model: Model, limit: int, given: Given | None = None) -> Model:
    """Return the model with settings that keep this process, or the device if it is not the CPU, below `limit` bytes.

    From then on freed memory goes back to the system at once, or the process would not keep to it.

    Raises:
        SpecError: if nothing fits, naming the smallest limit that would do.
    """
    planner = Planner(model.registry, weights=model.weights, given=given)
    give_memory_back()
    plan = planner.fit(_setting_of(model), limit)
    del planner
    gc.collect()
    trim()
    setting = plan.setting
    dtype = next(name for name, dtype in DTYPES.items() if dtype == setting.dtype)
    return replace(model, spec=setting.spec, dtype=dtype, economy=Economy(setting.in_turn, (_said(plan),)))


def _said(plan: Plan) -> str:
    """Say in a line what was planned."""
    assert plan.limit is not None
    how = " ".join(plan.options()) or "nothing is given up"
    return f"planned for {format_size(plan.limit)}, with a peak of about {format_size(plan.highest)}: {how}"


__all__ = ["fitted"]
