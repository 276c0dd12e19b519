"""The API pages are whole: they have every public name, and each tells something."""

import contextlib
import dataclasses
import enum
import functools
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import BLOCKS

import nghttp2py

DOCS = Path(__file__).parent.parent / "docs"

# What stands in docs/api; each other module is internal, or a part of one of these
# that hands its names on.
PUBLIC = [
    "nghttp2py",
    "nghttp2py.access",
    "nghttp2py.access_formats",
    "nghttp2py.asgi",
    "nghttp2py.asgi.forwarded",
    "nghttp2py.asgi.metrics",
    "nghttp2py.asgi.wsgi",
    "nghttp2py.asyncio",
    "nghttp2py.asyncio.h3",
    "nghttp2py.asyncio.quic",
    "nghttp2py.buffer",
    "nghttp2py.compat.hpack",
    "nghttp2py.errors",
    "nghttp2py.h0.connection",
    "nghttp2py.h1",
    "nghttp2py.h1.events",
    "nghttp2py.h2",
    "nghttp2py.h2.config",
    "nghttp2py.h2.connection",
    "nghttp2py.h2.events",
    "nghttp2py.h3",
    "nghttp2py.h3.config",
    "nghttp2py.h3.connection",
    "nghttp2py.h3.events",
    "nghttp2py.h3.exceptions",
    "nghttp2py.hpack",
    "nghttp2py.httpx",
    "nghttp2py.local_certificate",
    "nghttp2py.quic",
    "nghttp2py.quic.configuration",
    "nghttp2py.quic.connection",
    "nghttp2py.quic.events",
    "nghttp2py.quic.logger",
    "nghttp2py.quic.packet",
    "nghttp2py.quic.tls",
    "nghttp2py.site",
    "nghttp2py.static_files",
    "nghttp2py.testing",
    "nghttp2py.trusted",
    "nghttp2py.websocket",
    "nghttp2py.workers",
]
INTERNAL = [
    "nghttp2py.__main__",
    "nghttp2py.arguments",
    "nghttp2py.asgi.",
    "nghttp2py.asyncio.",
    "nghttp2py.httpx.",
    "nghttp2py.cli",
    "nghttp2py.cli.",
    "nghttp2py.cli.get.",
    "nghttp2py.client",
    "nghttp2py.compat",
    "nghttp2py.exchange",
    "nghttp2py.frames",
    "nghttp2py.h0",
    "nghttp2py.h1.connection",
    "nghttp2py.h1.head",
    "nghttp2py.h2.body",
    "nghttp2py.h2.bodies",
    "nghttp2py.h2.convert",
    "nghttp2py.h3.",
    "nghttp2py.handler",
    "nghttp2py.hpack_faults",
    "nghttp2py.libraries",
    "nghttp2py.log_budget",
    "nghttp2py.query",
    "nghttp2py.quic.",
    "nghttp2py.link",
    "nghttp2py.listings",
    "nghttp2py.server",
    "nghttp2py.tls",
    "nghttp2py.workers.",
    "nghttp2py.x509",
]

# Builds the pages without writing any, and prints what they declare, with its kind.
BUILD = """
import json, sys
from sphinx.application import Sphinx
app = Sphinx(sys.argv[1], sys.argv[1], sys.argv[2], sys.argv[2], "dummy",
             status=None, warning=sys.stderr, warningiserror=True)
app.build()
objects = app.env.domaindata["py"]["objects"]
json.dump({name: entry.objtype for name, entry in objects.items()}, sys.stdout)
sys.exit(app.statuscode)
"""


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    """The names that the pages declare, with the kind of each."""
    out = tmp_path_factory.mktemp("docs")
    # By -c it would be "<string>", as the functions that namedtuple makes are, and
    # autodoc would look for their source in it (CPython 3.13 keeps that).
    built = subprocess.run(
        [sys.executable, "-", DOCS, out], input=BUILD, capture_output=True, text=True
    )
    assert built.returncode == 0 and not built.stderr, built.stderr
    return json.loads(built.stdout)


@functools.cache
def resolve(name):
    """The object of a dotted name."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ModuleNotFoundError:
            continue
        for part in parts[i:]:
            # Attributes of instances cannot be had from the class.
            found = getattr(found, part, None)
        return found
    raise AssertionError(name)


def members(cls):
    """The public attributes that a class of ours gives its instances."""
    found = set()
    for base in cls.__mro__:
        if not base.__module__.startswith("nghttp2py"):
            continue
        found |= {
            name
            for name, value in vars(base).items()
            if not name.startswith("_") and not inspect.isclass(value)
        }
        if dataclasses.is_dataclass(base):
            found |= {field.name for field in dataclasses.fields(base)}
    if issubclass(cls, enum.Enum):
        found = set(cls.__members__)
    return {name for name in found if not name.startswith("_")}


def places_of(value, name, declared):
    """Where the pages declare an object: it may have several names."""
    return [
        place
        for place, kind in declared.items()
        if (place.rpartition(".")[2] == name or kind in ("class", "exception"))
        and resolve(place) is value
    ]


def test_every_module_is_public_or_internal():
    names = [
        module.name
        for module in pkgutil.walk_packages(nghttp2py.__path__, "nghttp2py.")
        if module.name != "nghttp2py.__main__"
    ]
    for name in names:
        if name not in PUBLIC:
            within = name.rpartition(".")[0] + "."
            assert name in INTERNAL or within in INTERNAL, name


def test_every_public_name_and_method_is_declared(declared):
    missing = []
    for module, name in ((m, n) for m in PUBLIC for n in resolve(m).__all__):
        value = getattr(resolve(module), name)
        places = places_of(value, name, declared)
        if not places:
            missing.append(f"{module}.{name}")
        elif inspect.isclass(value):
            # What a base declares is not said again.
            for base in value.__mro__[1:]:
                places += places_of(base, base.__name__, declared)
            missing += [
                f"{module}.{name}.{member}"
                for member in sorted(members(value))
                if not any(f"{place}.{member}" in declared for place in places)
            ]
    assert not missing, "\n".join(missing)


def test_every_class_and_method_of_ours_has_a_docstring(declared):
    """Those of fields are beside them: what reads well there is not asked for."""
    silent = []
    for name, kind in declared.items():
        if kind in ("class", "exception", "function", "method", "property"):
            value = resolve(name)
            if not (inspect.getdoc(value) or "").strip():
                silent.append(name)
    assert not silent, "\n".join(silent)


def test_every_class_is_in_an_example_of_the_api_pages():
    """But exceptions, numbers and events: the example of their page has the kind.

    An ``H3Stream`` is for debuggers.
    """
    examples = "\n".join(
        block.text
        if block.kind == "python"
        else (block.page.parent / block.text).read_text()
        for block in BLOCKS
        if block.page.parent.name == "api" and block.kind in ("python", "example")
    )
    missing = []
    for module, name in ((m, n) for m in PUBLIC for n in resolve(m).__all__):
        value = getattr(resolve(module), name)
        is_class = inspect.isclass(value) and value.__module__.startswith("nghttp2py.")
        if not is_class or issubclass(value, (BaseException, enum.Enum)):
            continue
        # Some have an older name, too.
        names = rf"\b({name}|{value.__name__})\b"
        unmade = value.__module__.endswith("events") or name == "H3Stream"
        if not unmade and not re.search(names, examples):
            missing.append(f"{module}.{name}")
    assert not missing, "\n".join(missing)


def test_no_function_takes_keywords_that_type_checkers_do_not_know(declared):
    unknown = []
    for name, kind in declared.items():
        if kind in ("class", "function", "method"):
            with contextlib.suppress(TypeError, ValueError):
                for parameter in inspect.signature(resolve(name)).parameters.values():
                    known = str(parameter.annotation).startswith("Unpack[")
                    if parameter.kind is parameter.VAR_KEYWORD and not known:
                        unknown.append(f"{name}: {parameter}")
    assert not unknown, "\n".join(unknown)
