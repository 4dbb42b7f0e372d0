"""Programs, devices and plans for the tests of the simulated wafer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cgc_wse.job import Job, job_of
from cgc_wse.mode import plan, workload_of
from cgc_wse.plan import Plan

from cgc import load_device
from cgc.driver import load_program
from cgc.elaborate.files import elaborate_file
from cgc.program import Device, Program
from cgc.target import CompileOptions

EXAMPLES = Path(__file__).parents[2] / "examples"

TRAIN = "\ntrain {\n    batch     = 3 sequences\n    optimizer = adamw(beta1=0.9)\n    precision = bf16\n}\n"
ONE = "model one(width = 8, out = 4, context = 16) {\n    input x[batch, seq <= context, width]\n"
ONE += "    output y = linear(x, width -> out, bias=false)\n}\n"
"""One block: 32 parameters, 512 multiply-adds for a sequence."""
LAYERS = "model many(width = 8, context = 16, layers = 16) {\n    input x[batch, seq <= context, width]\n"
LAYERS += "    repeat layers as h {\n        x = linear(x, width -> width, bias=false)\n    }\n    output y = x\n}\n"
"""Equal layers of 64 parameters."""


def program_of(text: str) -> Program:
    """Return the program of a text."""
    (program,) = elaborate_file(text, "m.cg").programs
    return program


def example(name: str, **sizes: int) -> Program:
    """Return the program of an example."""
    return load_program(str(EXAMPLES / name), sizes)


def device(columns: int, rows: int, memory: int, base: str = "tiny16") -> Device:
    """Return a device of another size."""
    return replace(load_device(base), name="d", columns=columns, rows=rows, memory=memory)


def planned(program: Program, device: Device, **options: Any) -> tuple[Plan, Job]:
    """Return the plan of what a program is meant for; options are those of `CompileOptions`."""
    job = job_of(program, CompileOptions(**options))
    return plan(workload_of(program.graph, job), job, device, options.get("run")), job
