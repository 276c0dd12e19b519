"""How Sphinx builds these pages; `make docs` makes every warning an error."""

import ast
import copy
import dataclasses
import functools
import re
import sys
from pathlib import Path

import nghttp2py

PACKAGE = Path(nghttp2py.__file__).parent

project = "nghttp2py"
author = "the nghttp2py founders"
copyright = f"{author}. MIT licence"
release = version = nghttp2py.__version__
extensions = ["sphinx.ext.autodoc", "sphinx_copybutton"]
# A session is copied without its prompts and output.
copybutton_prompt_text = "$ "
html_theme = "furo"
html_title = f"nghttp2py {release}"
html_static_path = ["_static"]
html_css_files = ["figures.css"]
exclude_patterns = ["build", "performance"]
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 96
# A reference to a name of ours must lead somewhere; those to others' lead nowhere
# here, for that would take their inventories from the network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!nghttp2py).*"),
    # Type variables, and types of arguments that only we give.
    ("py:class", r"nghttp2py\.exchange\.\w+"),
    ("py:class", r".*\.(Incoming|Outgoing|StreamLink|H3Link|H2ConnectionOwner)"),
    ("py:class", r".*\.(P|Deadlines|ConnectionOwner|EndLog|_\w+)"),
]


_MAKERS = "__init__", "__new__"


class _Plain(ast.NodeTransformer):
    """Types of a stub without what is private in it: short aliases are told."""

    def __init__(self, aliases):
        self.aliases = aliases

    def visit_Name(self, node):
        alias = self.aliases.get(node.id)
        if alias is not None and len(ast.unparse(alias)) < 32:
            return alias
        return ast.Name(node.id.lstrip("_"))


@functools.cache
def _stub(module):
    """The definitions in a module's stub, by qualified name, and its aliases.

    A .py that Cython has compiled, with a .pxd beside it, is its own stub.
    """
    path = PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".pyi")
    if path.with_suffix(".pxd").is_file() and not path.is_file():
        path = path.with_suffix(".py")
    found, aliases = {}, {}
    if module.split(".")[0] != "nghttp2py" or not path.is_file():
        return found, aliases

    def walk(nodes, prefix):
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                found[prefix + node.name] = node
                walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                # The first of overloads is the one that most use.
                found.setdefault(prefix + node.name, node)
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                aliases[ast.unparse(node.target)] = node.value

    walk(ast.parse(path.read_text()).body, "")
    return found, aliases


def _fields_as_call(node):
    """What makes a dataclass: a function of its fields."""
    arguments = ast.arguments([], [], None, [], [], None, [])
    for field in node.body:
        if isinstance(field, ast.AnnAssign):
            arguments.args.append(ast.arg(field.target.id, field.annotation))
            value = field.value
            if isinstance(value, ast.Call):
                value = next(k.value for k in value.keywords if k.arg == "default")
            if value is not None:
                arguments.defaults.append(value)
    return ast.FunctionDef("__init__", arguments, [], [])


def _signature(app, what, name, obj, options, signature, return_annotation):
    """The types of what is compiled, which only its stub knows."""
    module, path = getattr(obj, "__module__", None), getattr(obj, "__qualname__", "")
    found, aliases = _stub(module or "")
    node = found.get(path)
    if what == "class" and signature is None:
        # Sphinx 9 takes none for a class that it has found none for itself; the
        # page says "autoclass:: Name()" then.
        return None
    if isinstance(node, ast.ClassDef) and dataclasses.is_dataclass(obj):
        node = _fields_as_call(node)
    elif isinstance(node, ast.ClassDef):
        # What makes it may be a base's.
        for base in obj.__mro__:
            found, aliases = _stub(base.__module__)
            inits = [found.get(f"{base.__qualname__}.{n}") for n in _MAKERS]
            if node := next(filter(None, inits), None):
                break
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return None
    arguments = _Plain(aliases).visit(copy.deepcopy(node.args))
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        del arguments.args[0]
    text = ast.unparse(arguments)
    # A default that the stub leaves out stands in what was found at run time.
    for name in re.findall(r"(\w+):[^,]*=\.\.\.", text):
        if known := re.search(rf"\b{name}=([^,)]+)", signature or ""):
            pattern = rf"(\b{name}:[^,]*=)\.\.\."
            text = re.sub(pattern, lambda found, k=known: found[1] + k[1], text)
    returns = None
    if what != "class" and node.returns is not None:
        returns = ast.unparse(_Plain(aliases).visit(copy.deepcopy(node.returns)))
    return f"({text})", returns


def _with_values(app, what, name, obj, options, signature, return_annotation):
    """The same, with numbers where the default is the name of a constant."""
    found = _signature(app, what, name, obj, options, signature, return_annotation)
    text, returns = found or (signature, return_annotation)
    module = sys.modules.get(getattr(obj, "__module__", None) or "")

    def value(constant):
        number = getattr(module, constant[2], None)
        if isinstance(number, (int, float)) and constant[2] != "UNSET":
            return f"{constant[1]}{number!r}"
        return constant[0]

    return (
        None
        if text is None
        else (re.sub(r"(= ?)([A-Z][A-Z_]+)\b", value, text), returns)
    )


def setup(app):
    app.connect("autodoc-process-signature", _with_values)
