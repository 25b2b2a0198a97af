"""Every table and figure of the papers as a named experiment, a file for each paper."""

from . import adgm, cagem, flows, gemp, kingma, thesis, toys, willetts
from .base import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for paper in (thesis, toys, kingma, adgm, willetts, gemp, cagem, flows)
    for experiment in paper.EXPERIMENTS
}
