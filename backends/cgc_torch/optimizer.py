"""`configure_optimizers`: AdamW with one parameter group for each distinct setting that the parametrization derived."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cgc.parametrize.model import parametrization_of
from cgc.program import ParamSetting, Program
from cgc_torch.formatting import WIDTH, plain, statement
from cgc_torch.reasons import AS_GIVEN, reason
from cgc_torch.weights import state_entries

QUANTITIES = ("lr", "eps", "weight_decay")

SELECT = '''
def parameters_named(model: nn.Module, *names: str) -> list[nn.Parameter]:
    """Return the parameters with these names, where `*` is a layer's index."""
    found = model.named_parameters()
    return [value for name, value in found if re.sub(r"\\.\\d+\\.", ".*.", name) in names]
'''


def optimizer_method(program: Program) -> list[str]:
    """Return the lines of the method; none where the file says nothing about training."""
    if program.mup is None and (program.train is None or program.train.lr is None):
        return []
    adamw = program.train.optimizer if program.train is not None else None
    if adamw is not None and adamw.name != "adamw":
        return []
    arguments = dict(adamw.arguments) if adamw is not None else {}
    betas = f"({arguments.get('beta1', 0.9)!r}, {arguments.get('beta2', 0.999)!r})"
    made = parametrization_of(program)
    base = _base_rate(program)
    default = "" if base is None else f" = {base!r}"
    method = f"def configure_optimizers(self, learning_rate: float{default}) -> torch.optim.AdamW:"
    lines = statement(method, 1)
    lines += [
        f'        """Return AdamW with a parameter group for each distinct setting ({plain(made.name)})."""',
        "        groups: list[dict[str, Any]] = [",
    ]
    for settings in _groups(made.params):
        lines += _group(program, settings)
    made_of = f"torch.optim.AdamW(groups, lr=learning_rate, betas={betas}, fused=True)"
    return [*lines, "        ]", *statement(f"return {made_of}", 2)]


def _base_rate(program: Program) -> float | None:
    rate = program.mup.value("lr") if program.mup is not None else None
    return program.train.lr if rate is None and program.train is not None else rate


def _groups(settings: tuple[ParamSetting, ...]) -> list[list[ParamSetting]]:
    """Return the parameters by distinct setting, in the order of the first of each."""
    groups: dict[tuple[object, ...], list[ParamSetting]] = {}
    for setting in settings:
        rate = setting.lr if "lr" in setting.overridden else setting.lr_factor
        key = ("lr" in setting.overridden, rate, setting.eps, setting.weight_decay)
        groups.setdefault(key, []).append(setting)
    return list(groups.values())


def _group(program: Program, settings: list[ParamSetting]) -> Iterator[str]:
    """Yield the lines of one group; the comment says which classes it holds, and why they have these settings."""
    first = settings[0]
    yield from dict.fromkeys(line for setting in settings for line in _comments(setting))
    members = {setting.name for setting in settings}
    entries = (entry for entry in state_entries(program) if entry.param in members)
    names = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", entry.key) for entry in entries))
    yield "            {"
    quoted = [f'"{name}"' for name in names]
    line = f'                "params": parameters_named({", ".join(["self", *quoted])}),'
    if len(line) <= WIDTH:
        yield line
    else:
        yield '                "params": parameters_named('
        yield from (f"                    {name}," for name in ("self", *quoted))
        yield "                ),"
    yield f'                "lr": {_rate(first)},'
    if first.eps is not None:
        yield f'                "eps": {first.eps!r},'
    decay = 0.0 if first.weight_decay is None else first.weight_decay
    yield f'                "weight_decay": {decay!r},'
    yield "            },"


def _comments(setting: ParamSetting) -> Iterator[str]:
    """Yield comment lines: the class of a parameter and why it has this rate, then what else is not as given."""
    yield f"            # {plain(f'{setting.group}: {reason(setting, QUANTITIES[0])}')}"[:WIDTH]
    for quantity in QUANTITIES[1:]:
        why = reason(setting, quantity)
        if why not in ("", "0", AS_GIVEN):
            yield f"            #     {plain(f'{quantity}: {why}')}"[:WIDTH]


def _rate(setting: ParamSetting) -> str:
    if "lr" in setting.overridden:
        return repr(setting.lr)
    factor = setting.lr_factor
    if factor == 1:
        return "learning_rate"
    whole = round(1 / factor)
    if whole > 1 and abs(whole * factor - 1) < 1e-12:
        return f"learning_rate / {whole}"
    return f"learning_rate * {factor!r}"
