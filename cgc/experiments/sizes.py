"""Small copies of a model at other widths: what a `mup` item says grows is made larger or smaller together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from cgc.driver import UsageError, load_program
from cgc.elaborate.values import Scalar
from cgc.program import Program


@dataclass(frozen=True, slots=True)
class Subject:
    """A file and which model of it, with sizes that replace the file's."""

    file: str
    overrides: tuple[tuple[str, Scalar], ...] = ()
    model: str | None = None

    def program(self, sizes: Mapping[str, Scalar] | None = None) -> Program:
        """Return the model with further sizes replaced, whether or not it scales as it should (errors as `check`)."""
        return load_program(self.file, {**dict(self.overrides), **(sizes or {})}, self.model, scaling="none")


def at_width(subject: Subject, width: int, like: Program | None = None) -> Program:
    """Return the model with its first growing size equal to `width`, and the others in proportion.

    Without a `mup` item, the size called `width` grows alone. `like` is the model at its own sizes, if known.

    Raises:
        UsageError: there is no such size, or the proportion does not come out whole.
        InputError: the model cannot be built at this width.
    """
    program = like or subject.program()
    return subject.program({**dict(subject.overrides), **sizes_at(program, width)})


def sizes_at(program: Program, width: int) -> dict[str, Scalar]:
    """Return the sizes of the header that change where the first growing one is `width` (UsageError as `at_width`)."""
    header = {name for name, value in program.arguments if isinstance(value, int)}
    deep = {name for grown in program.scaling.grown if grown.deep for name in grown.names} if program.scaling else set()
    base = program.mup.base if program.mup is not None else ()
    wide = [(name, size) for name, size in base if name in header and name not in deep]
    if not wide:
        if "width" not in header:
            raise UsageError("say what grows: add `mup { scale width from 64 }` to the file")
        return {"width": width}
    (_, first) = wide[0]
    sizes: dict[str, Scalar] = {}
    for name, size in wide:
        value = Fraction(size * width, first)
        if value.denominator != 1:
            raise UsageError(f"at width {width}, `{name}` would be {float(value):g}; choose another width")
        sizes[name] = int(value)
    return sizes


def parse_numbers(text: str, option: str) -> tuple[float, ...]:
    """Parse `128,256,512` (UsageError where it is something else)."""
    try:
        numbers = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"{option} {text}: write numbers with commas, as in `{option} 128,256,512`") from error
    if not numbers or not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"{option} {text}: give at least one number, and only finite ones")
    return numbers


def parse_widths(text: str) -> tuple[int, ...]:
    """Parse the widths of `--widths`, smallest first (UsageError where they are no whole numbers above 0)."""
    numbers = parse_numbers(text, "--widths")
    if any(number < 1 or number != int(number) for number in numbers):
        raise UsageError(f"--widths {text}: widths are whole numbers above 0")
    return tuple(sorted({int(number) for number in numbers}))
