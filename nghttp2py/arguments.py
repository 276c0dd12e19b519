"""Checks of arguments, whose errors name the argument, its rule and the value."""

from __future__ import annotations

import math
from typing import Any

__all__ = [
    "check_bool",
    "check_callable",
    "check_int",
    "check_seconds",
    "check_type",
    "describe",
]

# A message shows a value of one of these types if it is not too long.  Bytes and longer
# values may be secrets, and messages are logged.
_SHOWN = (bool, int, float, str, type(None))
_MOST_SHOWN = 80


def describe(value: object) -> str:
    """Return what an error message shows of a value: its repr, or its type."""
    if isinstance(value, _SHOWN):
        shown = repr(value)
        if len(shown) <= _MOST_SHOWN:
            return shown
    return type(value).__name__


def check_type(name: str, value: object, kinds: Any, rule: str) -> None:
    """Raise ``TypeError`` unless ``value`` is of ``kinds``, as ``rule`` says."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {rule}, not {describe(value)}")


def check_bool(name: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is a ``bool``."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {describe(value)}")


def check_callable(name: str, value: Any) -> None:
    """Raise ``TypeError`` unless ``value`` can be called.  ``None`` cannot."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, not {describe(value)}")


def check_int(
    name: str,
    value: Any,
    least: int,
    most: int | None = None,
    *,
    rule: str = "",
    error: type[Exception] = ValueError,
) -> None:
    """Raise ``TypeError`` unless ``value`` is an ``int``, ``error`` if it is out of
    range.

    Without ``most`` the range has no upper end.  ``rule`` says where it comes from.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {describe(value)}")
    if value < least and most is None:
        raise error(f"{name} must be at least {least}, not {value}")
    if most is not None and not least <= value <= most:
        rule = rule and f" ({rule})"
        raise error(f"{name} is {value}, but must be from {least} to {most}{rule}")


def check_seconds(
    name: str,
    value: Any,
    *,
    least: float = math.ulp(0),
    most: float = math.inf,
    optional: bool = True,
) -> None:
    """Raise ``TypeError`` or ``ValueError`` unless ``value`` is a number of seconds.

    It must be finite, and from ``least`` to ``most``.  With ``optional``, ``None`` is
    valid, too: no bound.
    """
    if value is None and optional:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not {describe(value)}")
    if not (least <= value <= most and math.isfinite(value)):
        rule = "positive" if least else "zero or more"
        if most != math.inf:
            rule += f", and at most {most:g} seconds"
        raise ValueError(f"{name} must be {rule}, not {value!r}")
