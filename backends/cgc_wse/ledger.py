"""Memory tensor by tensor: what each block keeps in SRAM, by category.

Rows are for one run of a stage (`runs` of them have the same), all sequences that are kept together; in weight
streaming a core holds its part of each, rounded up to whole vectors, so the plan's totals are a little more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

from cgc_wse.flatten import FlatStage, Group, Tensor
from cgc_wse.job import GRADIENT_BYTES, Job
from cgc_wse.kernel_cost.decode import cached_dims, held_tensors
from cgc_wse.kernels import kept_tensors
from cgc_wse.mode import Workload
from cgc_wse.plan import Plan

Row = dict[str, Any]


def tensor_rows(workload: Workload, plan: Plan) -> list[Row]:
    """Return a row for each tensor in SRAM: block, category, name, shape, bytes of one run, runs."""
    rows: list[Row] = []
    homes = _homes(workload.flat)
    for stage in workload.flat:
        if plan.job.purpose == "decode":
            rows += _decoding(stage, workload, plan.job, homes)
        elif plan.mode == "resident":
            rows += _resident(stage, plan.job, homes)
        else:
            rows += _streaming(stage, plan)
    return rows


def _row(block: str, category: str, name: str, shape: dict[str, int], size: int, runs: int) -> Row:
    return {"block": block, "category": category, "tensor": name, "shape": shape, "bytes": size, "runs": runs}


def _count(tensor: Tensor) -> int:
    return prod(tensor.shape.values())


def _name(stage: FlatStage, root: int) -> str:
    """Return what a tensor is called: the block that makes it, or the stage it enters."""
    maker = stage.tensors[root].maker
    return f"enters {stage.name}" if maker is None else f"made by {stage.groups[maker].path}"


def _homes(stages: Iterable[FlatStage]) -> dict[str, str]:
    """Return the block that each parameter lives in: of those that use it the one that does most with it."""
    found: dict[str, tuple[int, str]] = {}
    for stage in stages:
        for group in stage.groups:
            macs = sum(application.multiply_adds * application.times for application in group.applications)
            for name, _ in _used(stage, group):
                if name not in found or macs > found[name][0]:
                    found[name] = macs, group.path
    return {name: path for name, (_, path) in found.items()}


def _used(stage: FlatStage, group: Group) -> Iterator[tuple[str, Tensor]]:
    for application in group.applications:
        for index in application.operands:
            tensor = stage.tensors[stage.tensors[index].root]
            if tensor.param:
                yield tensor.param, tensor


def _params(stage: FlatStage, homes: Mapping[str, str]) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (block, parameter, its tensor) for the parameters that live in a stage."""
    for group in stage.groups:
        for name, tensor in dict(_used(stage, group)).items():
            if homes[name] == group.path:
                yield group.path, name, tensor


def _resident(stage: FlatStage, job: Job, homes: Mapping[str, str]) -> Iterator[Row]:
    for block, name, tensor in _params(stage, homes):
        size = _count(tensor)
        yield _row(block, "weights", name, tensor.shape, size * job.number, stage.runs)
        if job.purpose == "training":
            yield _row(block, "gradients", name, tensor.shape, size * GRADIENT_BYTES, stage.runs)
            yield _row(block, "optimizer", name, tensor.shape, size * job.optimizer_state, stage.runs)
    if job.purpose != "training":
        return
    for index, group in enumerate(stage.groups):
        roots, _ = kept_tensors(stage, index, group.applications)
        for root in sorted(roots):
            tensor = stage.tensors[root]
            yield _row(
                group.path,
                "activations in flight",
                _name(stage, root),
                tensor.shape,
                _count(tensor) * job.number,
                stage.runs,
            )


def _streaming(stage: FlatStage, plan: Plan) -> Iterator[Row]:
    number = plan.job.number
    for root in dict.fromkeys(stage.tensors[i].root for i in stage.entering):
        tensor = stage.tensors[root]
        if tensor.floating:
            size = _count(tensor) * number * plan.at_once
            yield _row(stage.name, "activations", _name(stage, root), tensor.shape, size, stage.runs)
    if plan.job.purpose != "training":
        return
    kept: dict[int, str] = {}
    for index, group in enumerate(stage.groups):
        for root in sorted(kept_tensors(stage, index, group.applications)[0]):
            kept.setdefault(root, group.path)
    for root, block in kept.items():
        tensor = stage.tensors[root]
        if tensor.maker is not None:
            size = _count(tensor) * number * plan.in_work
            yield _row(block, "in work", _name(stage, root), tensor.shape, size, 1)


def _decoding(stage: FlatStage, workload: Workload, job: Job, homes: Mapping[str, str]) -> Iterator[Row]:
    for block, name, tensor in _params(stage, homes):
        yield _row(block, "weights", name, tensor.shape, _count(tensor) * job.number, stage.runs)
    for root, block in held_tensors(stage, cached_dims(workload.graph))[1].items():
        tensor = stage.tensors[root]
        size = _count(tensor) * job.number * job.batch
        yield _row(block, "KV cache", _name(stage, root), tensor.shape, size, stage.runs)
