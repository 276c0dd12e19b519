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

# A value is shown in a message if it is of one of these types and not too long: what
# is larger, or of bytes, may be a secret, and messages are logged.
_SHOWN = (bool, int, float, str, type(None))
_MOST_SHOWN = 80


def describe(value: object) -> str:
    """Return a value as an error message has it: itself, or its type."""
    if isinstance(value, _SHOWN):
        shown = repr(value)
        if len(shown) <= _MOST_SHOWN:
            return shown
    return type(value).__name__


def check_type(name: str, value: object, kinds: Any, rule: str) -> None:
    """Raise ``TypeError`` for what is not of ``kinds``, which ``rule`` describes."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {rule}, not {describe(value)}")


def check_bool(name: str, value: object) -> None:
    """Raise ``TypeError`` for what is no ``bool``."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {describe(value)}")


def check_callable(name: str, value: Any) -> None:
    """Raise ``TypeError`` for what cannot be called.  ``None`` does not pass."""
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
    """Raise ``TypeError`` for what is no ``int``, ``error`` for one out of range.

    Without ``most`` it has no upper end.  ``rule`` says where the range comes from.
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
    """Raise ``TypeError`` or ``ValueError`` for what is no number of seconds.

    It must be finite, and from ``least`` to ``most``.  ``None``, which is no bound,
    passes if it is ``optional``.
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
