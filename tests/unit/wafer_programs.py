"""Partitioned programs for tests: a model in a mode, on a rectangle of cores with memory for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cgc_wse.partition.check import check
from cgc_wse.partition.flat import Flat, Mode, flatten, random_arrays, reference
from cgc_wse.partition.lower import lower
from cgc_wse.partition.memory import peaks
from cgc_wse.partition.plan import Plan, Run
from cgc_wse.partition.planner import plan
from cgc_wse.partition.program import Partitioned
from cgc_wse.simulate.machine import Run as Ran
from cgc_wse.simulate.machine import run
from cgc_wse.simulate.requests import differences

from cgc import load_device
from cgc.driver import load_program
from cgc.elaborate.files import elaborate_file
from cgc.program import Device, Program

GPT2 = {"layers": 2, "width": 16, "vocab": 24, "context": 8, "heads": 2}
LLAMA = """use std/llama

model small = llama(vocab=24, context=8, layers=2, width=16, heads=4, kv_heads=2, ffn=24)

train {
    batch     = 2 sequences
    lr        = 1e-3
    optimizer = adamw(beta1=0.9, beta2=0.95, weight_decay=0.1)
    clip      = 1.0
}
"""


def gpt2(**sizes: int) -> Program:
    """Return a small GPT-2 with a `train` item."""
    return load_program("examples/tiny.cg", {**GPT2, **sizes})


def llama() -> Program:
    """Return a small LLaMA with grouped queries."""
    (program,) = elaborate_file(LLAMA, "llama.cg").programs
    return program


def cores(rows: int, columns: int, memory: int = 1 << 22) -> Device:
    """Return a device with memory enough."""
    return replace(load_device("tiny16"), name="cores", rows=rows, columns=columns, memory=memory)


@dataclass(frozen=True)
class Prepared:
    """A program with what it runs on and what it is to give."""

    flat: Flat
    plan: Plan
    program: Partitioned
    arrays: Mapping[str, Any]
    expected: dict[str, Any]

    def ran(self, program: Partitioned | None = None) -> tuple[Ran, float]:
        """Run it, or another program in its place; returns the run and the largest difference."""
        found = run(program or self.program, self.flat.sizes, self.arrays)
        return found, max(differences(found, self.expected).values())

    def faults(self, program: Partitioned | None = None) -> list[str]:
        """Return what the checker says."""
        return check(program or self.program, self.flat.sizes)

    def memory(self) -> dict[tuple[int, int], int]:
        """Return the most bytes of each core by analysis."""
        return dict(peaks(self.program))


def prepared(program: Program, mode: Mode, how: Run, device: Device, batch: int = 2, seq: int = 8) -> Prepared:
    """Partition a program and compute what it is to give."""
    flat = flatten(program, mode, batch, seq)
    made = plan(flat, device, how)
    stacked, weights, inputs = random_arrays(flat, program, 0)
    expected = reference(flat, program, stacked, inputs)
    return Prepared(flat, made, lower(flat, made, device), {**weights, **inputs}, expected)
