"""Find an application by its name, and the interface that it has.

A name is ``module:attribute``.  Attributes may be nested (``module:site.app``), and a
pair of parentheses at the end calls a factory (``module:create_app()``).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import logging
import os
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, TypeAlias

from nghttp2py.arguments import describe
from nghttp2py.asgi.wsgi import THREADS, wrap_wsgi
from nghttp2py.errors import ApplicationError

__all__ = ["INTERFACES", "ASGIApplication", "find_interface", "load_application"]

logger = logging.getLogger(__name__)

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApplication: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: The interfaces of an application; "auto" reads it from the application's signature.
INTERFACES = ("auto", "asgi3", "asgi2", "wsgi")

_NAME = re.compile(r"([\w.]+):([\w.]+)(\(\))?", re.ASCII)


def load_application(
    app: Any,
    *,
    factory: bool = False,
    app_dir: str | os.PathLike[str] | None = None,
    interface: str = "auto",
    wsgi_threads: int = THREADS,
) -> ASGIApplication:
    """Return an application as one of ASGI 3.

    ``app`` is the application, its name, or with ``factory`` a function without
    arguments that returns it.  ``app_dir`` is put at the front of ``sys.path``.
    ``wsgi_threads`` are for ``wrap_wsgi``.

    Raises :class:`~nghttp2py.errors.ApplicationError`, with one line as its text.  Its
    ``details`` are the traceback of an exception that the application's own code has
    raised, without the frames of the import system.
    """
    name = app if isinstance(app, str) else _describe_application(app)
    if isinstance(app, str):
        if app_dir is not None:
            _add_directory(os.fspath(app_dir))
        app, called = _import(app)
        factory = factory and not called
    if not callable(app):
        raise ApplicationError(f"{name} is not callable: it is {_kind(app)}")
    if factory:
        app = _call_factory(app, name)
    elif interface == "auto" and _is_factory(app):
        logger.warning(
            "%s takes no arguments: it is called as a factory (say so by --factory or "
            "factory=True)",
            name,
        )
        app = _call_factory(app, name)
    if interface == "auto":
        interface = find_interface(app, name)
    elif interface not in INTERFACES:
        raise ApplicationError(
            f"interface must be one of {', '.join(INTERFACES)}, not "
            f"{describe(interface)}"
        )
    if interface == "asgi2":
        return functools.partial(_call_asgi2, app)
    if interface == "wsgi":
        return wrap_wsgi(app, wsgi_threads)
    application: ASGIApplication = app
    return application


def _add_directory(directory: str) -> None:
    path = os.path.abspath(directory)
    if path not in sys.path:
        sys.path.insert(0, path)


# ---- Names ----


def _import(name: str) -> tuple[Any, bool]:
    """Return what a name stands for, and whether the name called it."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ApplicationError(f"{name!r} is no name of an application{_hint(name)}")
    module_name, attributes, call = match.groups()
    found: Any = _import_module(module_name)
    walked = f"module {module_name!r}"
    for count, attribute in enumerate(attributes.split("."), 1):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise ApplicationError(
                f"{walked} has no attribute {attribute!r}{_suggest(attribute, found)}"
            ) from None
        except Exception as error:
            raise _failed(f"{walked} cannot give {attribute!r}", error) from error
        walked = f"{module_name}:{'.'.join(attributes.split('.')[:count])}"
    if call:
        if not callable(found):
            raise ApplicationError(f"{walked} is not callable: it is {_kind(found)}")
        return _call_factory(found, walked), True
    return found, False


def _hint(name: str) -> str:
    """Return what is probably meant by a name that is none."""
    module, colon, attribute = name.partition(":")
    path = module.removesuffix(".py")
    if path != module or "/" in module:
        path = path.strip("./").replace("/", ".")
        return f": write the module, not its file: {path}:{attribute or 'app'}"
    if not colon and module:
        return f": write module:attribute, such as {module}:app"
    return ": write module:attribute, such as main:app"


def _import_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        # Otherwise the module exists, and imports one that does not.
        if missing == name or name.startswith(f"{missing}."):
            where = f" (in {name!r})" if missing != name else ""
            raise ApplicationError(
                f"there is no module {missing!r}{where}; --app-dir is the directory "
                "in which it is looked for"
            ) from None
        raise _failed(f"module {name!r} cannot be imported", error) from error
    except Exception as error:
        raise _failed(f"module {name!r} cannot be imported", error) from error


def _suggest(wanted: str, found: Any) -> str:
    names = [
        name
        for name in dir(found)
        if not name.startswith("_") and callable(getattr(found, name, None))
    ]
    close = difflib.get_close_matches(wanted, names, 1)
    return f"; it has {close[0]!r}" if close else ""


def _kind(value: Any) -> str:
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"


def _describe_application(app: Any) -> str:
    name = getattr(app, "__qualname__", None)
    return f"the application {name}" if name else "the application"


# ---- Errors of the application's own code ----


def _failed(what: str, error: Exception) -> ApplicationError:
    text = traceback.format_exception_only(type(error), error)[-1].strip()
    trimmed = error.with_traceback(_own_frames(error.__traceback__))
    details = "".join(traceback.format_exception(trimmed))
    return ApplicationError(f"{what}: {text}", details=details)


def _own_frames(tb: TracebackType | None) -> TracebackType | None:
    """Return a traceback without our frames and those of the import system."""
    while tb is not None:
        name = tb.tb_frame.f_code.co_filename
        if not (
            name == __file__
            or name.startswith("<frozen importlib")
            or name == importlib.__file__
        ):
            break
        tb = tb.tb_next
    return tb


def _call_factory(factory: Callable[[], Any], name: str) -> Any:
    try:
        app = factory()
    except Exception as error:
        raise _failed(f"the factory {name} failed", error) from error
    if inspect.iscoroutine(app):
        app.close()
        raise ApplicationError(
            f"the factory {name} is a coroutine function: it must be a function that "
            "returns the application"
        )
    if not callable(app):
        raise ApplicationError(
            f"the factory {name} must return an application, not {_kind(app)}"
        )
    return app


# ---- Interfaces ----


def find_interface(app: Any, name: str = "the application") -> str:
    """Return "asgi3", "asgi2" or "wsgi", by the arguments that ``app`` takes.

    ASGI 3 takes a scope, receive and send; ASGI 2 a scope; WSGI an environment and
    start_response.  What has no signature is of ASGI 3.  Raises
    :class:`~nghttp2py.errors.ApplicationError` for something else.
    """
    signature = _signature(app)
    if signature is None or _takes(signature, 3):
        return "asgi3"
    if not any(map(inspect.iscoroutinefunction, (app, type(app).__call__))):
        if _takes(signature, 2):
            return "wsgi"
        if _takes(signature, 1):
            return "asgi2"
    raise ApplicationError(
        f"{name} is no ASGI application: it takes {signature}, not scope, receive and "
        "send"
    )


def _is_factory(app: Any) -> bool:
    """Return whether a callable can only be called without arguments."""
    signature = _signature(app)
    if signature is None or not _takes(signature, 0):
        return False
    if inspect.isclass(app):
        return True  # its instances may be applications; it is none itself
    return not any(_takes(signature, count) for count in (1, 2, 3))


def _signature(app: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(app)
    except (TypeError, ValueError):
        return None


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


async def _call_asgi2(app: Any, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope)(receive, send)
