"""From a program back to a published configuration, which is read again and compared: none says another model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, NoReturn

from cgc.diagnostics import Diagnostic, InputError, Label
from cgc.importers.configuration import import_text
from cgc.importers.export_hub import hub_text
from cgc.importers.export_modelzoo import modelzoo_text
from cgc.ir.graph import Init
from cgc.program import Program, Train

Form = Literal["hub", "modelzoo"]

FAMILIES = ("gpt2", "gpt_neox", "llama")


def export_text(program: Program, form: str) -> str:
    """Return a configuration of a program: a hub's `config.json`, or model-zoo YAML.

    Raises:
        InputError: CG1008, it is of another family, or has what such a configuration cannot say.
    """
    text, again = _text_and_again(program, form)
    for difference in _differences(program, again, form):
        more = form == "hub" and program.family in FAMILIES[:1]
        _refuse(program, difference, f"{_KEEP}, or write it with `--format modelzoo`" if more else _KEEP)
    return text


def export_sizes(program: Program) -> str:
    """Return the `config.json` for a program whose weights have taken up its multipliers: sizes and functions alone.

    Raises:
        InputError: CG1008, it is of another family, or has what such a configuration cannot say.
    """
    text, again = _text_and_again(program, "hub")
    for difference in _size_differences(program, again):
        _refuse(program, difference, _KEEP)
    return text


_KEEP = "a configuration of this form cannot say it; keep the model in `.cg`"


def _text_and_again(program: Program, form: str) -> tuple[str, Program]:
    """Return a configuration of a program, and the program that it is read as."""
    family = program.family
    known = FAMILIES if form == "hub" else FAMILIES[:1]
    if family not in known or program.graph.location.file != f"std/{family}.cg":
        hint = f"a configuration of this form speaks of {', '.join(f'`{name}` of std/{name}' for name in known)}"
        _refuse(program, f"`{program.name}` is of no family that has a configuration", hint)
    text = hub_text(program) if form == "hub" else modelzoo_text(program)
    return text, _imported(text, program)


def _refuse(program: Program, message: str, hint: str) -> NoReturn:
    place = program.mup.location if program.mup is not None else program.graph.location
    labels = (Label(place),) if place.file == program.file else ()
    raise InputError([Diagnostic("CG1008", f"`{program.name}` cannot be exported: {message}", labels, hint)])


def _imported(text: str, program: Program) -> Program:
    from cgc.driver import parametrize_checked
    from cgc.elaborate.files import elaborate_file

    try:
        made = import_text(text, "configuration", "again")
    except InputError as error:
        _refuse(program, error.diagnostics[0].message, error.diagnostics[0].hint)
    (again,) = parametrize_checked(elaborate_file(made, "again.cg"), "none").programs
    return again


def _differences(program: Program, again: Program, form: str) -> Iterator[str]:
    """Yield in what two programs differ that a configuration of this form should say."""
    yield from _size_differences(program, again)
    yield from _parametrization_differences(program, again, form)
    if form == "modelzoo":
        yield from _train_differences(program, again)


def _size_differences(program: Program, again: Program) -> Iterator[str]:
    """Yield the arguments in which two programs differ, but for those of initial distributions."""
    ours, theirs = dict(program.arguments), dict(again.arguments)
    for name in ours.keys() - {"std", "embed_std", "out_std"}:
        if not _equal(ours[name], theirs[name]):
            yield f"`{name}` would be {theirs[name]}, not {ours[name]}"


def _parametrization_differences(program: Program, again: Program, form: str) -> Iterator[str]:
    from cgc.parametrize.model import parametrization_of

    ours, theirs = parametrization_of(program), parametrization_of(again)
    for param, other in zip(ours.params, theirs.params, strict=True):
        pairs: dict[str, tuple[Any, Any]] = {"init": (param.init, other.init)}
        if form == "modelzoo":
            pairs |= {name: (getattr(param, name), getattr(other, name)) for name in ("lr", "eps", "weight_decay")}
        for name, (own, made) in pairs.items():
            if not _equal(own, made):
                yield f"the {name} of `{param.name}` would be {made}, not {own}"
    factors, made_factors = ([(f.path, f.value) for f in p.factors] for p in (ours, theirs))
    for path in dict.fromkeys(path for path, _ in (*factors, *made_factors)):
        own_product, made_product = (
            math.prod(value for at, value in found if at == path) for found in (factors, made_factors)
        )
        if not _equal(own_product, made_product):
            yield f"`{path}` would be multiplied by {made_product:g}, not by {own_product:g}"


def _train_differences(program: Program, again: Program) -> Iterator[str]:
    from cgc.importers.export_modelzoo import in_steps

    ours, theirs = program.train or Train(), again.train or Train()
    for name in ("steps", "batch", "schedule", "optimizer", "clip", "precision", "seed"):
        own, made = getattr(in_steps(program, ours), name), getattr(theirs, name)
        if not _equal(own, made):
            yield f"`{name}` of the run would be {made}, not {own}"


def _equal(a: Any, b: Any) -> bool:
    """Tell whether two values are equal, numbers in them up to rounding."""
    if isinstance(a, Init) and isinstance(b, Init):
        parts = ("std", "mean", "limit")
        return a.distribution == b.distribution and all(_equal(getattr(a, p), getattr(b, p)) for p in parts)
    if isinstance(a, bool | str) or a is None or isinstance(b, bool | str) or b is None:
        return bool(a == b)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=0.0)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    fields = getattr(a, "__dataclass_fields__", None)
    if fields is not None and type(a) is type(b):
        return all(_equal(getattr(a, name), getattr(b, name)) for name in fields if name != "location")
    return bool(a == b)
