"""cgc: from a model's specification in `.cg` to a checked dataflow graph, PyTorch, ONNX and a simulated wafer.

`load` is the entrance: `cgc.load("model.cg").to_torch()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cgc.version import VERSION as __version__

if TYPE_CHECKING:
    from cgc.diagnostics import InputError
    from cgc.elaborate.devices import load_device
    from cgc.model import Model, load

__all__ = ["InputError", "Model", "__version__", "load", "load_device"]

_HOMES = {
    "InputError": "cgc.diagnostics",
    "Model": "cgc.model",
    "load": "cgc.model",
    "load_device": "cgc.elaborate.devices",
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for, so that `import cgc` costs nothing."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cgc' has no attribute {name!r}")
