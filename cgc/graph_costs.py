"""What blocks cost, for pictures of graphs: looked up by the path of a block or of a statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cgc.ir.graph import Region
    from cgc.program import Program
    from cgc.services import BlockCost


@dataclass(frozen=True, slots=True)
class GraphCosts:
    """Costs of the smallest blocks that have any; larger blocks cost what those in them do together."""

    blocks: tuple[BlockCost, ...]

    def of(self, path: str) -> dict[str, str]:
        """Return what to show for a block: nothing where it has no costs of its own."""
        own = [block for block in self.blocks if block.path == path or block.path.startswith(f"{path}.")]
        if not own or not path:
            return {}
        shown = {
            "time": f"{100 * sum(block.share for block in own):.1f}% of a step",
            "multiply-adds": f"{sum(block.multiply_adds for block in own):.3g}",
        }
        parameters = sum(block.parameters for block in own)
        if parameters:
            shown["parameters"] = f"{parameters:,}"
        if len(own) == 1:
            (one,) = own
            shown |= {"runs": str(one.runs), "cores": f"{one.cores:,}", "bound by": one.bound}
        return shown

    def heat(self, path: str) -> float:
        """Return the share of a step that a block takes, from 0 to 1."""
        return sum(b.share for b in self.blocks if path and (b.path == path or b.path.startswith(f"{path}.")))


def block_paths(region: Region) -> frozenset[str]:
    """Return the paths of blocks and loops that stand in a region: a statement's op of that path has no own costs."""
    from cgc.ir.ops import Call, Repeat

    return frozenset(node.path for node in region.nodes if isinstance(node.op, Call | Repeat))


def costs_of(program: Program, target: str, device: str | None) -> GraphCosts:
    """Return what the blocks of a program cost on a target.

    Raises:
        InputError: the target cannot say.
        UsageError: there is no such target, or it has no costs.
    """
    from cgc.diagnostics import Diagnostic, InputError
    from cgc.driver import UsageError, find_target
    from cgc.services import BlockCosts
    from cgc.target import CompileOptions, TargetError

    found = find_target(target)
    if not isinstance(found, BlockCosts):
        raise UsageError(f"target `{target}` does not say what blocks cost")
    try:
        return GraphCosts(tuple(found.block_costs(program, CompileOptions(device=device))))
    except TargetError as error:
        raise InputError([Diagnostic(error.code, str(error), (), error.hint)]) from error
