"""What nghttp2py uses of the compiler in .py files, for mypy: Cython has no types."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

_Class = TypeVar("_Class", bound=type)
_Function = TypeVar("_Function")

Py_ssize_t: TypeAlias = int

def cclass(cls: _Class) -> _Class: ...
def critical_section(function: _Function) -> _Function: ...
def freelist(size: int) -> Callable[[_Class], _Class]: ...
