"""Faults that show inside the library, or inside a family, are shown where the user's file asked for it."""

from __future__ import annotations

from dataclasses import replace

from cgc.diagnostics import Diagnostic, Label
from cgc.elaborate.modules import Modules

OF_SIZES = frozenset({"CG0204", "CG0205", "CG0208", "CG0404", "CG0408", "CG0410", "CG0411"})
"""Faults that depend on the sizes an instance gives."""


def blame(diagnostic: Diagnostic, modules: Modules) -> Diagnostic:
    """Return a fault with the labels in the user's files first, the first of them being the cause.

    Where a fault lies in the library and no label elsewhere, the innermost call from outside the library is the cause.
    """
    if not modules.is_library(diagnostic.location.file):
        return diagnostic
    own = [label for label in diagnostic.labels if not modules.is_library(label.location.file)]
    inside = [label for label in diagnostic.labels if modules.is_library(label.location.file)]
    if not own:
        calls = (label for label in diagnostic.trace if not modules.is_library(label.location.file))
        own = [Label(call.location, "asked for here") for call in calls][:1]
    return replace(diagnostic, labels=(*own, *inside))


def blame_instance(diagnostic: Diagnostic, modules: Modules, call: Label) -> Diagnostic:
    """Return a fault of a family with the instance that asked for it: `call` is its place and the family's name."""
    if modules.is_library(diagnostic.location.file) or diagnostic.code in OF_SIZES:
        diagnostic = replace(diagnostic, trace=(*diagnostic.trace, call))
    return blame(diagnostic, modules)
