"""Reinforcement learning on arithmetic with stale rollouts, measured exactly along the way."""

from testbed.arithmetic.training.gradient import BatchGradient, Behaviour, batch_gradient
from testbed.arithmetic.training.running import TrainingRun, read_run, train
from testbed.arithmetic.training.settings import Training

__all__ = ["BatchGradient", "Behaviour", "Training", "TrainingRun", "batch_gradient", "read_run", "train"]
