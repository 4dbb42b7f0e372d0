"""Frozen dataclasses that cost nothing to define.

`dataclasses` compiles up to six methods for every class when its module is imported. With some hundred classes that is
a third of what `cgc check` takes; here all classes share one of each. To a type checker `record` is `dataclass`.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, dataclass, fields
from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["record"]

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(*, frozen):
        """Return a decorator that makes a class a frozen dataclass (`frozen` is there for the type checker)."""
        assert frozen
        return _define


def _define(cls: type[Any]) -> Any:
    made: Any = dataclass(init=False, repr=False, eq=False)(cls)
    known = fields(made)
    made._positional = tuple(field.name for field in known if not field.kw_only)
    made._all = frozenset(field.name for field in known)
    made._compared = tuple(field.name for field in known if field.compare)
    made._shown = tuple(field.name for field in known if field.repr)
    made._defaults = {field.name: field.default for field in known if field.default is not MISSING}
    made._factories = {field.name: field.default_factory for field in known if field.default_factory is not MISSING}
    made.__init__ = _init
    made.__eq__ = _equal
    made.__hash__ = _hash
    if made.__repr__ is object.__repr__:
        made.__repr__ = _repr
    made.__setattr__ = made.__delattr__ = _frozen
    return made


def _init(self: Any, *args: Any, **kwargs: Any) -> None:
    cls = type(self)
    values = dict(zip(cls._positional, args, strict=False))
    if len(args) > len(cls._positional) or not values.keys().isdisjoint(kwargs):
        raise TypeError(f"{cls.__name__}() got too many values")
    values.update(kwargs)
    if len(values) < len(cls._all):
        for name, default in cls._defaults.items():
            values.setdefault(name, default)
        for name, make in cls._factories.items():
            if name not in values:
                values[name] = make()
    if values.keys() != cls._all:
        raise TypeError(f"{cls.__name__}() takes {', '.join(sorted(cls._all))}; got {', '.join(sorted(values))}")
    self.__dict__.update(values)


def _equal(self: Any, other: Any) -> Any:
    if self is other:
        return True
    if type(self) is not type(other):
        return NotImplemented
    mine, theirs = self.__dict__, other.__dict__
    return all(mine[name] == theirs[name] for name in self._compared)


def _hash(self: Any) -> int:
    mine = self.__dict__
    return hash((type(self), *(mine[name] for name in self._compared)))


def _repr(self: Any) -> str:
    inside = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._shown)
    return f"{type(self).__qualname__}({inside})"


def _frozen(self: Any, name: str, *_: Any) -> NoReturn:
    raise FrozenInstanceError(f"cannot change `{name}` of a {type(self).__name__}")
