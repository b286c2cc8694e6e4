"""Training: recipes of phases, and one loop that runs them, cut short or not, to the same weights."""

from lavie.training.autoencoder import AutoencoderPhaseSpec
from lavie.training.denoiser import DenoiserPhaseSpec, TimestepsSpec
from lavie.training.interrupts import TrainingStoppedError
from lavie.training.optimizer import OptimizerSpec
from lavie.training.phase import Batch, EvaluationSpec, Phase, PhaseSpec, Source
from lavie.training.randomness import Draws
from lavie.training.recipe import CheckpointsSpec, Plan, RecipeSpec, TrainSpec
from lavie.training.trainer import DivergedError, Trainer

__all__ = [
    "AutoencoderPhaseSpec",
    "Batch",
    "CheckpointsSpec",
    "DenoiserPhaseSpec",
    "DivergedError",
    "Draws",
    "EvaluationSpec",
    "OptimizerSpec",
    "Phase",
    "PhaseSpec",
    "Plan",
    "RecipeSpec",
    "Source",
    "TimestepsSpec",
    "TrainSpec",
    "Trainer",
    "TrainingStoppedError",
]
