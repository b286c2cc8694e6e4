"""Schedules, prediction types, guidance, noise and solvers: four separate things that make a sampler."""
