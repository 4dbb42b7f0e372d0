"""Parametrization: from how a model scales to initial variances, multipliers and learning rates.

`uses` classifies, `derive` computes with a table, `apply` puts the result into the graph; `model` does all three.
"""
