"""httpx and httpx2: a response is made by the module that its request came from."""

from __future__ import annotations

import importlib
import sys
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nghttp2py.arguments import describe

__all__ = ["AsyncBaseTransport", "BaseTransport", "Module", "find_module"]

# By the name of the module, that of the package below it, whose exceptions a
# network stream raises.
_CORES = {"httpx": "httpcore", "httpx2": "httpcore2"}


def _find_installed() -> list[ModuleType]:
    """Return those of the modules that are imported, or the first that is installed."""
    found = [sys.modules[name] for name in _CORES if name in sys.modules]
    for name in _CORES:
        if found:
            break
        try:
            found.append(importlib.import_module(name))
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    if not found:
        raise ImportError(
            "nghttp2py.httpx needs the httpx package: pip install 'nghttp2py[httpx]' "
            "(or httpx2)"
        )
    return list(dict.fromkeys(found))  # one may be an alias of the other


if TYPE_CHECKING:
    # For a type checker a subclass of it is a transport of either module.
    AsyncBaseTransport: Any
    BaseTransport: Any
else:
    _INSTALLED = _find_installed()
    AsyncBaseTransport, BaseTransport = (
        type(name, tuple(getattr(module, name) for module in _INSTALLED), {})
        for name in ("AsyncBaseTransport", "BaseTransport")
    )


class Module:
    """What a transport needs of httpx or httpx2."""

    def __init__(self, name: str) -> None:
        package: Any = sys.modules[name]
        self._name = name
        self._package = package
        self._kinds: dict[type[Any], type[Any]] = {}
        self.response = package.Response
        self.request = package.Request
        self.headers = package.Headers
        self.byte_stream = package.ByteStream
        self.async_transport = package.AsyncHTTPTransport

    def get_exception(self, name: str) -> Any:
        """Return an exception's class by its name."""
        return getattr(self._package, name)

    def make_core_error(self, name: str, error: Exception) -> Exception:
        """Make the exception of that name that a network stream raises for another."""
        kind = getattr(importlib.import_module(_CORES[self._name]), name)
        made: Exception = kind(str(error) or type(error).__name__)
        return made

    def derive(self, kind: type[Any], base: str) -> type[Any]:
        """Return ``kind`` as a subclass of one of the module's classes."""
        found = self._kinds.get(kind)
        if found is None:
            found = type(kind.__name__, (kind, getattr(self._package, base)), {})
            self._kinds[kind] = found
        return found


_get_module = lru_cache(maxsize=None)(Module)


def _search_module(kind: Any) -> Module | None:
    for base in kind.__mro__:
        name = base.__module__.partition(".")[0]
        if name in _CORES:
            return _get_module(name)
    return None


_find_module = lru_cache(maxsize=64)(_search_module)


def find_module(request: object) -> Module:
    """Return the module of a request.

    Raises ``TypeError`` if it is neither httpx nor httpx2.
    """
    kind: Any = type(request)
    found = _find_module(kind)
    if found is None:
        raise TypeError(
            f"request must be one of httpx or httpx2, not {describe(request)}"
        )
    return found
