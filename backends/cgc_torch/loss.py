"""The cross-entropy of a language model's logits without the logits: a chunk of them is made, used and dropped."""

from __future__ import annotations

TARGETS = "targets"
"""The argument of `forward` that turns logits into a loss."""

LINEAR_CROSS_ENTROPY = '''
MOST_LOGITS = 2**24
"""How many logits `linear_cross_entropy` holds at a time."""


class LinearCrossEntropy(torch.autograd.Function):
    """Sum over rows of the cross-entropy of softmax(hidden @ weight.T).

    Logits would be the largest tensor of training. They are made for some rows at a
    time and turn into their own gradient, of which both products are taken at once:
    nothing of the size of the vocabulary is kept, nothing is computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, training: bool
    ) -> Tensor:
        """Map hidden [rows, width] and weight [vocab, width] to the sum over rows."""
        total = torch.zeros((), device=hidden.device)
        grad_hidden, grad_weight = hidden, weight
        if training:
            grad_hidden = torch.empty_like(hidden)
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        chunk = max(1, MOST_LOGITS // weight.shape[0])
        for first in range(0, hidden.shape[0], chunk):
            x = hidden[first : first + chunk]
            target = targets[first : first + chunk, None]
            log_p = F.log_softmax(F.linear(x, weight), dim=-1, dtype=torch.float32)
            total -= log_p.gather(1, target).sum()
            if not training:
                continue
            # The gradient of the logits: p, less 1 where the target is.
            minus_one = torch.full_like(target, -1.0, dtype=torch.float32)
            grad = log_p.exp_().scatter_add_(1, target, minus_one).to(x.dtype)
            torch.mm(grad, weight, out=grad_hidden[first : first + chunk])
            if grad.dtype == torch.float32:
                grad_weight.addmm_(grad.mT, x)
            else:
                grad_weight += grad.mT @ x
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return both gradients, which are ready but for their factor."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(grads[0]), grad_weight.mul_(grads[0]), None, None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the logits F.linear(hidden, weight)."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    training = torch.is_grad_enabled()
    rows = hidden.flatten(0, -2)
    total: Tensor = LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        rows, weight, targets.flatten(), training
    )
    return total / targets.numel()
'''
