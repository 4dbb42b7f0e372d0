"""Contractions: `F.linear` and `@` where the axes already stand right, an einsum with legible letters elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from cgc.ir.types import TensorType
from cgc_torch.expressions import PRODUCT, Expr, call, infix


def contraction(over: Sequence[str], operands: Sequence[Expr], types: Sequence[TensorType]) -> Expr:
    """Return Σ over the dimensions `over` of a · b: the axes of a that are kept, then those only b has."""
    a, b = operands
    left, right = types[0].names, types[1].names
    if len(over) == 1 and left and left[-1] == over[0]:
        batch, only = left[:-2], [name for name in right if name not in left]
        matrix = len(right) == 2 and len(only) == 1
        if matrix and right == (only[0], over[0]):
            return call("F.linear", a, b)
        if matrix and right == (over[0], only[0]):
            return infix(a, "@", b, PRODUCT)
        if len(left) >= 2 and len(only) == 1 and left[-2] not in right:
            if right == (*batch, over[0], only[0]):
                return infix(a, "@", b, PRODUCT)
            if right == (*batch, only[0], over[0]):
                return infix(a, "@", b.method("mT"), PRODUCT)
    kept = [name for name in left if name not in over]
    kept += [name for name in right if name not in over and name not in left]
    letters = einsum_letters([*left, *right])
    first, second, result = ("".join(letters[name] for name in names) for names in (left, right, kept))
    return call("torch.einsum", f'"{first},{second}->{result}"', a, b)


def einsum_letters(names: Sequence[str]) -> dict[str, str]:
    """Return a letter for each dimension: its first one, else its last, else any of its own, else any."""
    letters: dict[str, str] = {}
    for name in names:
        if name in letters:
            continue
        own = [c for c in name.lower() if c.isascii() and c.isalpha()]
        spare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
        wishes = [*own[:1], *own[-1:], *own, *spare]
        letters[name] = next(c for c in wishes if c not in letters.values())
    return letters
