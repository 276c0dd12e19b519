"""The compiler's directives that nghttp2py uses, for mypy: Cython has no types."""

from collections.abc import Callable
from typing import TypeVar

_Class = TypeVar("_Class", bound=type)
_Function = TypeVar("_Function")

def cclass(cls: _Class) -> _Class: ...
def critical_section(function: _Function) -> _Function: ...
def freelist(size: int) -> Callable[[_Class], _Class]: ...
