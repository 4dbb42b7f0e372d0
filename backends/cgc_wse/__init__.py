"""The target `wse-sim`: a model on a simulated wafer, as a report, a placement and a picture.

`flatten` and `kernels` say what each block does, `job` what is run; `pipeline` and `streaming` are the two ways to run
it, `decoding` is for one token at a time, and `mode` chooses; `op_cost` counts the cycles of ops on many layouts,
`op_work` says what they are, `bounds` what no plan can beat; `place` is the placement engine, `cluster` is many wafers
and a whole run, `ledger` lists memory tensor by tensor; `data`, `report`, `picture`, `viewer` and `trace` show the
result. `kernel_cost` times single kernels; `partition` splits every op over cores, and `simulate` runs that on a small
wafer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cgc.services import (
    BlockCost,
    CostAnswer,
    DecodeRequest,
    KernelRequest,
    PlaceAnswer,
    PlaceProgress,
    PlaceRequest,
    SimulationAnswer,
    SimulationRequest,
    StepTime,
)
from cgc.target import Compilation, CompileOptions, Evaluator, text_artifact

if TYPE_CHECKING:
    from cgc.program import Device, Program

DEFAULT_DEVICE = "wse2"
SIMULATED_DEVICE = "tiny16"


def find_device(program: Program, name: str | None) -> Device:
    """Return the device called `name`: one of the program's own file, or one that `cgc.load_device` finds.

    Without a name it is the only device of the program's file, or else the WSE-2.

    Raises:
        InputError: there is no such device, or its file has faults.
    """
    from cgc import load_device

    if name is None and len(program.devices) == 1:
        return program.devices[0]
    own = {device.name: device for device in program.devices}
    chosen = name or DEFAULT_DEVICE
    return own[chosen] if chosen in own else load_device(chosen)


class WaferTarget:
    """Model to wafer."""

    name = "wse-sim"
    summary = "a simulated wafer: placement, picture and first-order cost"
    takes = frozenset({"batch", "seq", "device", "mode", "run", "wafers", "recompute"})

    def compile(self, program: Program, options: CompileOptions) -> Compilation:
        """Return the report, and `placement.json`, `placement.svg`, `viewer.html`, `trace.json`.

        Raises:
            TargetError: the model fits on the device in no way (CG0601, CG0611, CG0655), an option cannot be honoured
                (CG0604, CG0606, CG0656), or it computes nothing (CG0607).
            InputError: the device cannot be read.
        """
        from cgc_wse.compilation import compile_for_wafer

        result = compile_for_wafer(program, find_device(program, options.device), options)
        artifacts = tuple(text_artifact(name, text) for name, text in result.files.items())
        return Compilation(artifacts, result.report, result.data)

    def evaluators(self, program: Program) -> Iterable[tuple[str, Evaluator]]:
        """Return the program partitioned over a few simulated cores, its weights streamed in."""
        from cgc_wse.simulate.evaluate import evaluator, small_device

        device = small_device()
        yield f"{device.columns} x {device.rows} simulated cores", evaluator(program, device, "streaming")

    def block_costs(self, program: Program, options: CompileOptions) -> Iterable[BlockCost]:
        """Return what each block costs in a step, in the order of the program (errors as `compile`)."""
        from cgc_wse.compilation import block_costs

        return block_costs(program, find_device(program, options.device), options)

    def kernel_cost(self, request: KernelRequest) -> CostAnswer:
        """Return what one kernel costs.

        Raises:
            TargetError: the grid is not one of the device (CG0608), the algorithm has no such form (CG0609).
            InputError: the device cannot be read.
        """
        from cgc import load_device
        from cgc_wse.kernel_cost.requests import answer

        return answer(request, load_device(request.device))

    def decode_cost(self, program: Program, request: DecodeRequest) -> CostAnswer:
        """Return what a decode step costs.

        Raises:
            TargetError: as `kernel_cost`; the model does not decode token by token (CG0610), or does not fit (CG0611).
            InputError: the device cannot be read.
        """
        from cgc_wse.kernel_cost.decode import decode

        return decode(program, find_device(program, request.device), request)

    def prefill_cost(self, program: Program, request: DecodeRequest) -> CostAnswer:
        """Return what a prefill costs (errors as `decode_cost`)."""
        from cgc_wse.kernel_cost.prefill import prefill

        return prefill(program, find_device(program, request.device), request)

    def place(self, request: PlaceRequest, report: Callable[[PlaceProgress], None]) -> PlaceAnswer:
        """Place the kernels of an ISPD 2020 contest problem.

        Raises:
            InputError: the problem cannot be read (CG0620 to CG0623).
            TargetError: it has no solution, or none was found (CG0624); there is no such method (CG0632).
        """
        from cgc_wse.place.command import place

        return place(request, report)

    def check_placement(self, problem: str, solution: str) -> PlaceAnswer:
        """Score a solution of an ISPD 2020 contest problem.

        Raises:
            InputError: problem or solution cannot be read, or the solution is not legal (CG0620 to CG0631).
            TargetError: the problem has no solution (CG0624).
        """
        from cgc_wse.place.command import check

        return check(problem, solution)

    def simulate(self, program: Program, request: SimulationRequest) -> SimulationAnswer:
        """Run the program's partition, tile by tile.

        Raises:
            TargetError: the model has no such mode (CG0640), does not fit (CG0641), the device is too large to be
                simulated (CG0642), or a size is out of range (CG0604, CG0606).
            InputError: the device cannot be read.
        """
        from cgc_wse.simulate.requests import simulate

        return simulate(program, request, find_device(program, request.device or SIMULATED_DEVICE))

    def step_time(self, program: Program, options: CompileOptions) -> StepTime:
        """Return how long a training step takes.

        Raises:
            TargetError: as `compile`.
            InputError: the device cannot be read.
        """
        from cgc_wse.compilation import training_step

        return training_step(program, find_device(program, options.device), options)


TARGET = WaferTarget()
