"""Results that are not written yet: what takes them may have an operator for more at once, and takes them apart.

Anything else asks for the `tensor`, which is then written, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from cgc_onnx.parameters.layout import Parameter
from cgc_onnx.writer import Tensor

if TYPE_CHECKING:
    from cgc_onnx.lowering.scope import Shared


@dataclass(slots=True)
class Later:
    """A tensor that `make` writes; an operator that makes it beside its own result sets `whole` instead."""

    make: Callable[[], Tensor]
    whole: Tensor | None = None

    def tensor(self) -> Tensor:
        """Return the tensor, written when it is first asked for."""
        if self.whole is None:
            self.whole = self.make()
        return self.whole


@dataclass(frozen=True, slots=True)
class Product:
    """`x` times a matrix of the parameter `weight`, and `bias` added: `produced` are the dimensions that come of it.

    `transposed`: the matrix lies as [produced, reduced].
    """

    later: Later
    x: Tensor
    weight: Parameter
    bias: Parameter | None
    reduced: tuple[str, ...]
    produced: tuple[str, ...]
    transposed: bool


@dataclass(frozen=True, slots=True)
class Turned:
    """A product turned by its `positions`: `tables` are the cosines and sines of all."""

    later: Later
    product: Product
    positions: Tensor
    tables: tuple[Shared, Shared]


@dataclass(frozen=True, slots=True)
class Joined:
    """A tensor and what comes behind it along an axis."""

    later: Later
    first: Tensor
    second: Tensor | Product | Turned


@dataclass(frozen=True, slots=True)
class Sum:
    """Two tensors of the same axes, which are to be added."""

    later: Later
    first: Tensor
    second: Tensor


Pending: TypeAlias = Product | Turned | Joined | Sum


def written(operand: Tensor | Pending) -> Tensor:
    """Return an operand as a tensor."""
    return operand if isinstance(operand, Tensor) else operand.later.tensor()


def renamed(operand: Product | Turned, new: Mapping[str, str]) -> Product | Turned:
    """Return the same result with dimensions called otherwise."""
    later = Later(lambda: operand.later.tensor().renamed(dict(new)))
    match operand:
        case Product():
            produced = tuple(new.get(name, name) for name in operand.produced)
            return replace(operand, later=later, produced=produced)
        case Turned():
            product = renamed(operand.product, new)
            assert isinstance(product, Product)
            return replace(operand, later=later, product=product)
