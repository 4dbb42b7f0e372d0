"""Cycles of single kernels on a rectangle of cores: GEMM, GEMV, reduce, broadcast, allreduce, a decode step.

`machine` holds the constants of a device, `collectives` the formulas of reductions and broadcasts, `lines` these for
many lines at once, `generated` the best trees, `gemm` and `gemv` the kernels made of them, `estimate` how a result
looks, `requests` what the command asks, `decode` a model's step for one token, `calibrate` where the constants come
from. docs/wafer_cost.md has the formulas, their sources and the errors.
"""
