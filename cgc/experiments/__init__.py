"""Experiments that train small copies of a model: the dynamic coordinate check, and sweeps over learning rates."""
