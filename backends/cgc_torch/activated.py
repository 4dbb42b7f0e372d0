"""Linear layers of an activation that keep the activation's input alone for the backward pass."""

from __future__ import annotations

from cgc_torch.intrinsics import InlineKind
from cgc_torch.names import class_name

ACTIVATIONS: dict[InlineKind, tuple[str, str]] = {
    "gelu": ("F.gelu(x)", "gelu_backward(grad_x, x)"),
    "gelu_tanh": ('F.gelu(x, approximate="tanh")', 'gelu_backward(grad_x, x, approximate="tanh")'),
    "silu": ("F.silu(x)", "silu_backward(grad_x, x)"),
}
"""The value and, from PyTorch's own operators, the gradient."""


def function_name(kind: InlineKind) -> str:
    """Return the function of the emitted file for a linear layer of this activation."""
    return f"{kind}_linear"


def activated_linear(kind: InlineKind) -> str:
    """Return the source of the function and of what it is made of."""
    function, (value, gradient) = function_name(kind), ACTIVATIONS[kind]
    return _TEMPLATE.format(cls=class_name(function), function=function, value=value, gradient=gradient)


_TEMPLATE = '''
class {cls}(torch.autograd.Function):
    """A linear layer of an activation, which keeps x alone for the backward pass.

    The activation is as large as x, and quickly made anew.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map x [..., in], weight [out, in], bias [out] to [..., out]."""
        ctx.save_for_backward(x, weight)
        return F.linear({value}, weight, bias)

    @staticmethod
    def backward(
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return the gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        grad, grad_weight, grad_bias = grads[0].flatten(0, -2), None, None
        if ctx.needs_input_grad[1]:
            active = {value}.flatten(0, -2).to(grad.dtype)
            grad_weight = grad.mT @ active
            del active
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0)
        grad_x = (grad @ weight.to(grad.dtype)).view_as(x).to(x.dtype)
        grad_x = torch.ops.aten.{gradient}
        return grad_x, grad_weight, grad_bias


def {function}(x: Tensor, linear: nn.Linear) -> Tensor:
    """Return linear({value})."""
    if torch.compiler.is_compiling():  # where it takes the compiler's own word for it
        kept: Tensor = checkpoint(lambda x: linear({value}), x, use_reentrant=False)
        return kept
    out: Tensor = {cls}.apply(  # type: ignore[no-untyped-call]
        x, linear.weight, linear.bias
    )
    return out
'''
