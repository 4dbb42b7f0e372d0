"""What the analytic model is held to the simulator on: single ops and blocks, on devices of several shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Case:
    """A model of one op or block, its free sizes, and the rows and columns of cores it runs on.

    `price` is what a byte of a core costs the planner, in cycles: where it is high, operands travel in turns.
    """

    name: str
    model: str
    sizes: tuple[tuple[str, int], ...]
    rows: int
    columns: int
    price: float = 0.0

    @property
    def shown(self) -> str:
        """The sizes, for a table."""
        return ", ".join(f"{name}={size}" for name, size in self.sizes)


_MODELS = {
    "linear": "input x[batch, seq, width]\n    output y = linear(x, width -> ffn)",
    "layer norm": "input x[batch, seq, width]\n    output y = layer_norm(x, over width)",
    "rms norm": "input x[batch, seq, width]\n    output y = rms_norm(x, over width)",
    "softmax": "input x[batch, seq, width]\n    output y = softmax(x, over width)",
    "gelu": "input x[batch, seq, width]\n    output y = gelu(x)",
    "swiglu": "input x[batch, seq, width]\n    output y = swiglu(x, width -> ffn)",
    "mlp": "input x[batch, seq, width]\n    output y = linear(gelu(linear(x, width -> ffn)), ffn -> width)",
    "attention": "dim head = width / heads\n    input x[batch, seq, width]\n    output y = attention(x)",
    "grouped attention": "dim head = width / heads\n    dim kv_heads = heads / 2\n    dim group = 2\n"
    "    input x[batch, seq, width]\n    output y = grouped_attention(x)",
    "rope": "input x[batch, seq, width]\n    output y = rope(x, along seq, over width)",
    "embedding": "param table[ffn, width] ~ normal(std=0.02)\n    input tokens[batch, seq] : id of ffn\n"
    "    output y = table[tokens]",
    "unembedding": "param table[ffn, width] ~ normal(std=0.02)\n    input x[batch, seq, width]\n"
    "    output y = dot(x, table, over width)",
}
SIZES = ("width", "ffn", "heads")


def source(case: Case) -> str:
    """Return a file with the model of a case."""
    header = ", ".join(f"{name} = {dict(case.sizes)[name]}" for name in SIZES if name in dict(case.sizes))
    uses = "use std/nn\nuse std/attention\nuse std/positions\n\n"
    return f"{uses}model case({header}) {{\n    {case.model}\n}}\n"


def _case(name: str, rows: int, columns: int, **sizes: int) -> Case:
    return Case(name, _MODELS[name], tuple(sizes.items()), rows, columns)


def cases() -> list[Case]:
    """Return all cases."""
    found: list[Case] = []
    for rows, columns in ((2, 2), (4, 4), (3, 5), (8, 2), (8, 8)):
        found += [
            _case("linear", rows, columns, batch=2, seq=16, width=64, ffn=128),
            _case("layer norm", rows, columns, batch=2, seq=16, width=64),
            _case("softmax", rows, columns, batch=1, seq=8, width=256),
            _case("mlp", rows, columns, batch=2, seq=16, width=64, ffn=256),
            _case("attention", rows, columns, batch=2, seq=16, width=64, heads=4),
            _case("swiglu", rows, columns, batch=1, seq=16, width=48, ffn=96),
            _case("embedding", rows, columns, batch=2, seq=16, width=64, ffn=128),
            _case("unembedding", rows, columns, batch=1, seq=8, width=64, ffn=256),
        ]
    for rows, columns in ((4, 4), (1, 8)):
        found += [
            _case("rms norm", rows, columns, batch=1, seq=4, width=512),
            _case("gelu", rows, columns, batch=2, seq=16, width=64),
            _case("grouped attention", rows, columns, batch=2, seq=16, width=64, heads=8),
            _case("rope", rows, columns, batch=2, seq=16, width=32),
        ]
    for rows, columns in ((16, 16), (12, 7)):
        found += [
            _case("linear", rows, columns, batch=1, seq=1, width=256, ffn=512),
            _case("mlp", rows, columns, batch=4, seq=16, width=64, ffn=256),
            _case("layer norm", rows, columns, batch=4, seq=16, width=128),
            _case("attention", rows, columns, batch=4, seq=16, width=64, heads=8),
        ]
    for rows, columns in ((4, 4), (3, 5), (8, 8)):
        found += [
            tight(_case("linear", rows, columns, batch=4, seq=16, width=64, ffn=128)),
            tight(_case("mlp", rows, columns, batch=4, seq=16, width=64, ffn=256)),
        ]
    return found


def tight(case: Case) -> Case:
    """Return a case in which memory is what counts."""
    return replace(case, name=f"{case.name}, little memory", price=100.0)
