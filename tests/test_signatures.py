"""inspect.signature() knows what is public and can be called, compiled or not."""

import ast
import enum
import inspect
from pathlib import Path

import pytest
from test_docs_api import PUBLIC, resolve

import nghttp2py

PACKAGE = Path(nghttp2py.__file__).parent


def public_values():
    """Every public class and function of ours, once, by its qualified name."""
    found = {}
    for module in PUBLIC:
        for name in resolve(module).__all__:
            value = getattr(resolve(module), name)
            callable_ = inspect.isclass(value) or inspect.isroutine(value)
            if callable_ and value.__module__.startswith("nghttp2py"):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


VALUES = public_values()
CLASSES = {
    name: value
    for name, value in VALUES.items()
    if inspect.isclass(value)
    # An exception takes what any takes, and a member of an enum is not made.
    and not issubclass(value, (BaseException, enum.Enum))
}


def methods(cls):
    """The public methods that a class of ours defines, as they are called on it."""
    for name, value in vars(cls).items():
        if name.startswith("_") or inspect.isclass(value):
            continue
        if callable(getattr(cls, name)):
            yield name, getattr(cls, name)


def stub_of(module):
    path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".pyi")
    if not path.is_file():
        return {}
    tree = ast.parse(path.read_text())
    return {node.name: node for node in tree.body if hasattr(node, "name")}


def names_of(signature):
    return [
        (parameter.name, parameter.kind, parameter.default is not parameter.empty)
        for parameter in signature.parameters.values()
    ]


def names_in(node, bound):
    """The same of a function in a stub; ``bound`` is whether its first is given."""
    arguments = node.args
    if bound:
        del arguments.args[0]
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    nothing = ast.Constant(None)
    arguments.defaults = [nothing for _ in arguments.defaults]
    arguments.kw_defaults = [default and nothing for default in arguments.kw_defaults]
    scope = {}
    exec(f"def call({ast.unparse(arguments)}): ...", scope)
    return names_of(inspect.signature(scope["call"]))


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_the_call_of_a_class_is_known(name):
    cls = CLASSES[name]
    found = inspect.signature(cls)
    for base in cls.__mro__:
        node = stub_of(base.__module__).get(base.__qualname__)
        if not isinstance(node, ast.ClassDef):
            if "__init__" in vars(base):
                return  # Python's own, which has no stub
            continue
        for method in node.body:
            if getattr(method, "name", "") in ("__init__", "__new__"):
                assert names_of(found) == names_in(method, True)
                return


@pytest.mark.parametrize("name", sorted(VALUES))
def test_every_function_and_method_is_known(name):
    value = VALUES[name]
    stub = stub_of(value.__module__).get(value.__qualname__)
    if not inspect.isclass(value):
        found = names_of(inspect.signature(value))
        if stub is not None:
            assert found == names_in(stub, False)
        return
    nodes = {} if stub is None else {getattr(n, "name", ""): n for n in stub.body}
    overloaded = {
        node.name
        for node in nodes.values()
        if "overload" in [ast.unparse(e) for e in getattr(node, "decorator_list", [])]
    }
    for method, function in methods(value):
        found = names_of(inspect.signature(function))
        if (node := nodes.get(method)) and method not in overloaded:
            bound = inspect.ismethod(function) or "classmethod" in {
                ast.unparse(entry) for entry in node.decorator_list
            }
            assert found == names_in(node, bound), method


def test_help_tells_how_a_compiled_class_is_made():
    text = inspect.getdoc(nghttp2py.h2.H2Connection)
    assert text.startswith("One end of an HTTP/2 connection")
    assert "client_side" in str(inspect.signature(nghttp2py.h2.H2Connection))


def test_a_subclass_has_the_call_of_its_own():
    class Handler(nghttp2py.BaseRequestHandler):
        def __init__(self, http2, stream_id, database):
            super().__init__(http2, stream_id)

    assert list(inspect.signature(Handler).parameters) == [
        "http2",
        "stream_id",
        "database",
    ]


# Those that aioquic has, too.
OF_AIOQUIC = {
    "nghttp2py.asyncio.quic.connect",
    "nghttp2py.asyncio.quic.serve",
    "nghttp2py.asyncio.quic_server.QuicServer",
    "nghttp2py.quic.connection.QuicConnection",
}


def test_a_configuration_is_named_config_but_where_aioquic_names_it():
    named = {"config": set(), "configuration": set(), "settings": set()}
    for name, value in VALUES.items():
        # An event has what came.
        if (name in CLASSES or not inspect.isclass(value)) and ".events." not in name:
            for parameter in inspect.signature(value).parameters:
                named.get(parameter, set()).add(name)
    assert named["configuration"] == OF_AIOQUIC
    assert {n for n in OF_AIOQUIC if n in named["config"]} == {
        "nghttp2py.asyncio.quic.connect",
        "nghttp2py.asyncio.quic.serve",
    }
    assert "nghttp2py.h3.connection.H3Connection" in named["config"]
    assert named["settings"] == {
        "nghttp2py.asyncio.timeouts.Timeouts",  # seconds to wait for SETTINGS
        "nghttp2py.h3.config.H3Configuration",  # further ones, by number
        "nghttp2py.h3.convert.encode_settings",  # what it encodes
    }
