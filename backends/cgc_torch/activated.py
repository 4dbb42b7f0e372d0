"""Linear layers of an activation that keep the activation's input alone for the backward pass."""

from __future__ import annotations

from cgc_torch.intrinsics import InlineKind
from cgc_torch.names import class_name

ACTIVATIONS: dict[InlineKind, tuple[str, str, str]] = {
    "gelu": ("F.gelu(x)", "gelu_backward", ""),
    "gelu_tanh": ('F.gelu(x, approximate="tanh")', "gelu_backward", 'approximate="tanh", '),
    "silu": ("F.silu(x)", "silu_backward", ""),
}
"""The value, PyTorch's own operator for the gradient, and what that takes beside the tensors."""


def function_name(kind: InlineKind) -> str:
    """Return the function of the emitted file for a linear layer of this activation."""
    return f"{kind}_linear"


def activated_linear(kind: InlineKind) -> str:
    """Return the source of the function and of what it is made of."""
    function, (value, gradient, how) = function_name(kind), ACTIVATIONS[kind]
    return _TEMPLATE.format(cls=class_name(function), function=function, value=value, gradient=gradient, how=how)


_TEMPLATE = '''
class {cls}(torch.autograd.Function):
    """A linear layer of an activation, which keeps x alone for the backward pass.

    The activation is as large as x, and quickly made anew.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map x [..., in], weight [out, in], bias [out] to [..., out]."""
        ctx.save_for_backward(x, weight)
        active = {value}
        return F.linear(active, weight, bias)

    @staticmethod
    def backward(
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        grad, grad_weight, grad_bias = grads[0].flatten(0, -2), None, None
        rows = {value}.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            grad_weight = grad.mT @ rows.to(grad.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0)
        # In the activation's place: as large, and nobody else has it.
        if rows.dtype == grad.dtype:
            torch.mm(grad, weight.to(grad.dtype), out=rows)
        else:
            rows = (grad @ weight.to(grad.dtype)).to(x.dtype)
        grad_x = rows.view_as(x)
        gradient = torch.ops.aten.{gradient}.grad_input
        gradient(grad_x, x, {how}grad_input=grad_x)
        return grad_x, grad_weight, grad_bias


def {function}(x: Tensor, linear: nn.Linear) -> Tensor:
    """Return linear({value})."""
    if torch.compiler.is_compiling():  # the compiler asks checkpoints what to keep

        def layer(x: Tensor) -> Tensor:
            active = {value}
            made: Tensor = linear(active)
            return made

        kept: Tensor = checkpoint(layer, x, use_reentrant=False)
        return kept
    out: Tensor = {cls}.apply(  # type: ignore[no-untyped-call]
        x, linear.weight, linear.bias
    )
    return out
'''
