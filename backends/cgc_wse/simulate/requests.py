"""From what was asked to an answer: sizes, the fitting plan, the run, the comparison with the reference."""

from __future__ import annotations

from typing import cast

import numpy as np

from cgc.ir.dims import evaluate
from cgc.program import Device, Program
from cgc.services import SimulationRequest
from cgc.target import TargetError
from cgc_wse.partition.analytic import estimate
from cgc_wse.partition.check import check
from cgc_wse.partition.fit import Fitted, Wish, fit
from cgc_wse.partition.flat import Arrays, Flat, Mode, flatten, random_arrays, reference
from cgc_wse.partition.memory import worst
from cgc_wse.simulate.answer import Simulation
from cgc_wse.simulate.machine import Run, run
from cgc_wse.simulate.memory import OutOfMemory

MOST_CORES = 1 << 13
"""Cores of a device that is still simulated."""
BATCH, SEQ = 2, 16
"""Sequences and tokens where nothing is said."""


def simulate(program: Program, request: SimulationRequest, device: Device) -> Simulation:
    """Run the partition of a program on a device.

    Raises:
        TargetError: CG0604 and CG0606 for sizes, CG0640 for the mode, CG0641 where it does not fit, CG0642 where the
            device is too large.
    """
    if device.cores > MOST_CORES:
        text = f"{device.name} has {device.cores:,} cores; simulated one by one, {MOST_CORES:,} are the most"
        raise TargetError("CG0642", text, "`--device tiny16`, or a device of your own with a smaller grid")
    mode = cast(Mode, request.mode or ("train" if program.train is not None else "prefill"))
    batch, seq = _sizes(program, request)
    flat = flatten(program, mode, batch, seq)
    if not flat.graph.body.nodes:
        raise TargetError("CG0607", f"`{program.name}` computes nothing", "give it an output that is computed")
    fitted = fit(flat, device, cast(Wish, request.run))
    stacked, weights, inputs = random_arrays(flat, program, request.seed)
    found = _run(fitted, flat, {**weights, **inputs})
    expected = reference(flat, program, stacked, inputs)
    return Simulation(
        program=program.name,
        device=device,
        mode=mode,
        batch=batch,
        seq=seq,
        seed=request.seed,
        flat=flat,
        fitted=fitted,
        run=found,
        estimate=estimate(fitted.program),
        peak=worst(fitted.program, fitted.memory),
        differences=differences(found, expected),
        faults=tuple(check(fitted.program, flat.sizes)),
    )


def _run(fitted: Fitted, flat: Flat, arrays: Arrays) -> Run:
    try:
        return run(fitted.program, flat.sizes, arrays)
    except OutOfMemory as error:
        raise TargetError(
            "CG0641", str(error), "a smaller `--batch` or `--seq`, or a device with more memory"
        ) from error


def differences(found: Run, expected: Arrays) -> dict[str, float]:
    """Return each output's largest difference, relative to its largest magnitude; infinity where it is no number."""
    gaps: dict[str, float] = {}
    for name, wanted in expected.items():
        got = found.outputs[name]
        if got.shape != wanted.shape:
            gaps[name] = float("inf")
            continue
        scale = float(np.max(np.abs(wanted), initial=0.0)) or 1.0
        same = (got == wanted) | (np.isnan(got) & np.isnan(wanted))
        with np.errstate(invalid="ignore"):
            gap = np.where(same, 0.0, np.abs(got.astype(np.float64) - wanted.astype(np.float64)))
        gaps[name] = float(np.max(np.nan_to_num(gap, nan=np.inf), initial=0.0)) / scale
    return gaps


def _sizes(program: Program, request: SimulationRequest) -> tuple[int, int]:
    """Return batch and tokens, small ones where nothing is said."""
    batch, seq = request.batch or BATCH, request.seq or SEQ
    names = {symbol.name for symbol in program.graph.symbols}
    for name, given in (("batch", request.batch), ("seq", request.seq)):
        if given is not None and name not in names:
            raise TargetError("CG0604", f"`{program.name}` has no free size `{name}`", f"leave `--{name}` out")
    others = sorted(names - {"batch", "seq"})
    if others:
        hint = "a simulation knows `batch` and `seq`; give the others numbers in the model"
        raise TargetError("CG0606", f"the size of `{others[0]}` is not known", hint)
    for symbol in program.graph.symbols:
        limit = evaluate(symbol.limit.size, {}) if symbol.limit is not None else None
        if symbol.name != "seq" or limit is None:
            continue
        if request.seq is not None and seq > limit:
            raise TargetError("CG0604", f"`seq` cannot be {seq}", f"it is at most {limit}")
        seq = min(seq, limit)
    return batch, seq
