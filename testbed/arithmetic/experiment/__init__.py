"""Experiments: methods compared under staleness, each at its best, over the same seeds."""

from testbed.arithmetic.experiment.command import experiment_command
from testbed.arithmetic.experiment.running import ExperimentResult, run_experiment
from testbed.arithmetic.experiment.settings import Experiment, LengthStudy, Method, packaged_experiment
from testbed.arithmetic.experiment.statistics import Interval, Paired, holm, mean_interval, paired, share_interval
from testbed.arithmetic.experiment.summary import Summary, summarise_runs

__all__ = [
    "Experiment",
    "ExperimentResult",
    "Interval",
    "LengthStudy",
    "Method",
    "Paired",
    "Summary",
    "experiment_command",
    "holm",
    "mean_interval",
    "packaged_experiment",
    "paired",
    "run_experiment",
    "share_interval",
    "summarise_runs",
]
