"""Why the numbers of a parametrization are what they are, as comments of the emitted source."""

from __future__ import annotations

import re

from cgc.ir.graph import Init
from cgc.program import ParamSetting, Program
from cgc_torch.formatting import WIDTH, plain

AS_GIVEN = "as given"


def reason(setting: ParamSetting, quantity: str) -> str:
    """Return why `quantity` (`init`, `lr`, `eps`, `weight_decay`) of a parameter is what it is, without the table."""
    return _short(dict(setting.reasons).get(quantity, ""))


def _short(text: str) -> str:
    return re.sub(r" \([^()]*\)(, std = [^,]*)?$", "", text)


class Reasons:
    """What to say in one class of the source; nothing of a program that has no `mup` item."""

    def __init__(self, program: Program, root: bool) -> None:
        made = program.parametrization
        self._made = made
        self._root = root
        self._inits: dict[Init, set[str]] = {}
        for setting in made.params if made is not None else ():
            self._inits.setdefault(setting.init, set()).add(reason(setting, "init"))

    def of(self, init: Init) -> str:
        """Return why parameters have this initial distribution, empty where there is no one reason to give."""
        found = self._inits.get(init, set())
        text = plain(next(iter(found))) if len(found) == 1 and init.distribution != "constant" else ""
        return "" if text in ("", "std", AS_GIVEN) or text.startswith("as declared") else text

    def multipliers(self) -> list[str]:
        """Return lines for the docstring of the model: what its forward pass multiplies by, and why."""
        if self._made is None or not self._root:
            return []
        lines = [
            f"Parametrized by {plain(self._made.name)}: deviations, rates and multipliers are derived for",
            "these sizes; compile again for others.",
        ]
        factors = [(plain(f.path), f"{f.value:.6g}", plain(_short(f.reason))) for f in self._made.factors]
        if factors:
            widths = [max(len(row[column]) for row in factors) for column in (0, 1)]
            rows = [f"    {path:{widths[0]}} * {value:{widths[1]}}  {why}".rstrip() for path, value, why in factors]
            lines += ["", "Multipliers:", "", *(row[: WIDTH - 4] for row in rows)]
        return lines
