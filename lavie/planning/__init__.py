"""Plans: what a video will need in memory and time, and how to make it fit, before anything runs."""

from lavie.planning.dry_run import PIXELS, Need, Setting, dry_run
from lavie.planning.levers import CHUNKS, FEATURES
from lavie.planning.plan import Plan, Planner
from lavie.planning.size import format_size, parse_size
from lavie.planning.speed import Rates, measure_rates

__all__ = [
    "CHUNKS",
    "FEATURES",
    "PIXELS",
    "Need",
    "Plan",
    "Planner",
    "Rates",
    "Setting",
    "dry_run",
    "format_size",
    "measure_rates",
    "parse_size",
]
