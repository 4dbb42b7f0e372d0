"""The closed set of primitive operators.

Every op is a frozen dataclass of plain attributes; its operands live on the node. A facet of the ops (type rule, NumPy
meaning, FLOPs, PyTorch, ONNX, ...) is one `match` over `Op` ending in `assert_never`, so that the type checker lists
every place that has to know about a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from cgc.ir.dims import Dim, Size
from cgc.ir.types import DType
from cgc.record import record

if TYPE_CHECKING:
    from cgc.ir.graph import Region

UnaryKind: TypeAlias = Literal[
    "neg", "abs", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh", "erf", "sigmoid", "floor", "not"
]
BinaryKind: TypeAlias = Literal[
    "add", "sub", "mul", "div", "pow", "max", "min", "mod", "lt", "le", "gt", "ge", "eq", "ne", "and", "or"
]
ReduceKind: TypeAlias = Literal["sum", "mean", "max", "min"]

UNARY_KINDS: tuple[UnaryKind, ...] = get_args(UnaryKind)
BINARY_KINDS: tuple[BinaryKind, ...] = get_args(BinaryKind)
REDUCE_KINDS: tuple[ReduceKind, ...] = get_args(ReduceKind)
COMPARISONS: frozenset[str] = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
LOGICAL: frozenset[str] = frozenset({"and", "or"})


@record(frozen=True)
class Constant:
    """() → scalar. `text` is how the user wrote the number (`sqrt(head)`), empty for a literal."""

    value: float | int | bool
    dtype: DType
    text: str = ""


@record(frozen=True)
class Position:
    """() → i64[dim]: the index along `dim`, 0 … size-1."""

    dim: Dim


@record(frozen=True)
class Unary:
    """(x) → same type: elementwise."""

    kind: UnaryKind


@record(frozen=True)
class Binary:
    """(a, b) → elementwise over the union of their dimensions; comparisons give bool. Both have one dtype."""

    kind: BinaryKind


@record(frozen=True)
class Where:
    """(condition: bool, a, b) → `a` where the condition holds, else `b`, over the union of dimensions."""


@record(frozen=True)
class Cast:
    """(x) → x in another dtype (float to integer truncates toward zero)."""

    dtype: DType


@record(frozen=True)
class Dot:
    """(a, b) → Σ over the dimensions `over` of a · b. Other shared dimensions are aligned, the rest are kept."""

    over: tuple[str, ...]


@record(frozen=True)
class Reduce:
    """(x) → x reduced over the dimensions `over`."""

    kind: ReduceKind
    over: tuple[str, ...]


@record(frozen=True)
class Scan:
    """(x) → inclusive running sum along the dimension `over`."""

    over: str


@record(frozen=True)
class Gather:
    """(table, index) → table with `dim` replaced by the index's dimensions; shared other dimensions are aligned."""

    dim: str


@record(frozen=True)
class Scatter:
    """(x, index) → `dim` for the dimensions `over`: each entry of x added where its index points, zeros elsewhere.

    Dimensions of the index that are not in `over` are aligned. The reverse of `Gather`, whose gradient it is.
    """

    dim: Dim
    over: tuple[str, ...]


@record(frozen=True)
class Rename:
    """(x) → x with dimensions renamed; `names` are (old, new) pairs."""

    names: tuple[tuple[str, str], ...]


@record(frozen=True)
class Transpose:
    """(x) → x with its dimensions in this order."""

    order: tuple[str, ...]


@record(frozen=True)
class Split:
    """(x) → x with `dim` split, row-major, into the dimensions `into`, whose sizes multiply to its size."""

    dim: str
    into: tuple[Dim, ...]


@record(frozen=True)
class Merge:
    """(x) → x with the dimensions `dims` merged, row-major in this order, into one called `into`.

    The result stands where the first of them stood.
    """

    dims: tuple[str, ...]
    into: str


@record(frozen=True)
class Slice:
    """(x) → entries `start` … `start + into.size - 1` of `dim`, as the dimension `into`."""

    dim: str
    start: Size
    into: Dim


@record(frozen=True)
class Concat:
    """(x₁, …, xₙ) → the operands one after another; operand i brings dimension `dims[i]`; the result is `into`."""

    dims: tuple[str, ...]
    into: str


@record(frozen=True)
class TopK:
    """(x) → (values, indices) of the `into.size` largest along `dim`, largest first, ties to the lower index."""

    dim: str
    into: Dim


@record(frozen=True)
class Call:
    """(args…, params…) → results of the function; `instance` is the user's name for this use of the block.

    The first `args` operands are tensors, the rest the function's parameters in order.
    """

    function: str
    instance: str
    args: int


@record(frozen=True)
class Repeat:
    """(carried…, shared…, stacked…) → carried values after `stack.size` runs of `body`, then collected values.

    `body`'s arguments stand in the same order. A stacked operand has the leading dimension `stack`, and the body sees
    one slice of it per iteration. The body's results are the next carried values, then the `collected` last ones: of
    each the loop results in the values of all iterations, stacked like an operand. With `reverse` the iterations run
    from the last slice to the first; collected values stand where the slices of their iteration do. `instance` is the
    user's name (`h`).
    """

    instance: str
    stack: Dim
    carried: int
    shared: int
    body: Region
    collected: int = 0
    reverse: bool = False


Primitive: TypeAlias = (
    Constant
    | Position
    | Unary
    | Binary
    | Where
    | Cast
    | Dot
    | Reduce
    | Scan
    | Gather
    | Scatter
    | Rename
    | Transpose
    | Split
    | Merge
    | Slice
    | Concat
    | TopK
)
"""What computes; the others are structure."""

Op: TypeAlias = Primitive | Call | Repeat

OPS: tuple[type[Op], ...] = get_args(Op)


def opcode(op: Op) -> str:
    """Return the name of an op in the textual form: `dot`, `reduce`, `top_k`."""
    name = type(op).__name__
    return "top_k" if name == "TopK" else name.lower()
