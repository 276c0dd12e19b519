"""The rules of docs/design.rst that the tree itself can break."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nghttp2py

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "nghttp2py"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx")])

# Each layer and what of ours it may import.  A module is of the layer whose name
# starts its path.  `libraries` reads the versions below; `h2` reads C's defaults by it.
LAYERS = {
    "arguments": set(),
    "errors": set(),
    "access": {"errors"},
    "access_formats": {"access"},
    "log_budget": set(),
    "libraries": {"h3", "quic"},
    "octets": set(),
    "trusted": set(),
    "x509": set(),
    "local_certificate": {"x509"},
    "hpack_faults": {"errors"},
    "hpack": {"errors", "hpack_faults", "octets"},
    "frames": {"errors", "hpack", "h2"},
    "h2": {"arguments", "errors", "hpack", "libraries", "octets"},
    "h1": {"errors", "h2"},
    "buffer": set(),
    "link": set(),
    "h3": {"arguments", "errors", "hpack", "octets", "link"},
    "quic": {"arguments", "errors", "octets", "link", "buffer", "x509"},
    "h0": {"h3", "quic"},
    "tls": {"quic"},
    "compat": {"hpack", "errors"},
    "exchange": {"errors", "access", "h2", "log_budget"},
    "asyncio": {
        "arguments",
        "errors",
        "access",
        "exchange",
        "frames",
        "hpack",
        "h1",
        "h2",
        "h3",
        "quic",
        "log_budget",
        "trusted",
        "x509",
    },
    "workers": {"arguments", "errors", "log_budget", "trusted", "quic", "asyncio"},
    "query": set(),
    "handler": {"errors", "exchange", "h2", "log_budget", "query", "asyncio"},
    "server": {"arguments", "errors", "exchange", "h2", "asyncio", "handler"},
    "client": {"arguments", "errors", "exchange", "h2", "log_budget", "asyncio"},
    "listings": set(),
    "static_files": {"arguments", "handler", "listings", "log_budget", "asyncio"},
    "site": {"arguments", "handler", "listings", "log_budget", "static_files"},
    "websocket": {"errors", "h2"},
    "asgi": {
        "workers",
        "access_formats",
        "arguments",
        "errors",
        "access",
        "exchange",
        "h2",
        "asyncio",
        "log_budget",
        "trusted",
        "websocket",
        "h3",
        "quic",
        "x509",
    },
    "httpx": {"arguments", "errors", "asyncio", "quic"},
    "cli": {
        *("", "arguments", "errors", "hpack", "libraries", "h2", "h3", "quic"),
        *("asyncio", "server", "client", "static_files", "asgi", "workers"),
        *("access", "frames", "listings", "local_certificate", "site"),
    },
    "testing": {"asyncio", "exchange", "h2", "h3", "local_certificate", "quic"},
    "__main__": {"", "cli"},
    "": {"libraries", "errors", "hpack", "h2", "server", "client"},
}


def layer(module):
    """The layer of a dotted module name below the package ("" for the package)."""
    return module.removeprefix("nghttp2py").lstrip(".").split(".")[0]


def imports(path):
    """Every module of ours that a source imports or cimports, anywhere in it."""
    text = path.read_text()
    if path.suffix == ".pyx":
        names = re.findall(r"^\s*from (nghttp2py[\w.]*) c?import (\w+)", text, re.M)
        names += [
            (m, "") for m in re.findall(r"^\s*c?import (nghttp2py[\w.]*)", text, re.M)
        ]
    else:
        names = []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names += [(alias.name, "") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: imports are absolute"
                names += [(node.module, alias.name) for alias in node.names]
    for module, name in names:
        if module == "nghttp2py" and (
            (PACKAGE / name).is_dir() or list(PACKAGE.glob(f"{name}.p*"))
        ):
            module = f"nghttp2py.{name}"
        if module.split(".")[0] == "nghttp2py":
            yield module


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_down(path):
    own = layer(module_name(path))
    for imported in imports(path):
        below = layer(imported)
        if below == own or below.startswith("cng"):  # the C headers' .pxd files
            continue
        assert below in LAYERS[own], f"{module_name(path)} imports {imported}"


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if layer(module_name(p)) in ("h1", "h2", "h3", "quic")],
    ids=module_name,
)
def test_sans_io_modules_import_no_asyncio(path):
    assert not re.search(
        r"^\s*(import|from) (asyncio|socket|ssl|time)\b", path.read_text(), re.M
    )


def test_handlers_know_no_protocol():
    source = (PACKAGE / "handler.pyx").read_text()
    assert re.findall(r"^from (nghttp2py\.h\d\S*) c?import (.+)$", source, re.M) == [
        ("nghttp2py.h2.events", "RequestReceived")
    ]


def test_only_the_pumps_write_to_a_transport():
    writers = {
        path.relative_to(PACKAGE).as_posix()
        for path in SOURCES
        if re.search(r"transport\.(write|writelines|sendto)\(", path.read_text())
    }
    assert writers <= {
        "asyncio/choice.py",  # one answer
        "asyncio/h1_pump.py",
        "asyncio/transfer.pyx",
        "asyncio/quic_protocol.py",
        "asyncio/quic_server.py",
    }


def test_c_sources_know_neither_python_nor_sockets_nor_clocks():
    for path in (ROOT / "src_c").iterdir():
        included = set(re.findall(r"#\s*include <([^>]+)>", path.read_text()))
        assert "Python.h" not in included, path
        # Certificates are valid by the system's clock, which GnuTLS reads itself.
        if path.stem == "ngp_tls_gnutls":
            included -= {"time.h"}
        if path.stem != "ngp_udp":
            assert not included & {"sys/socket.h", "time.h", "sys/time.h"}, path


# ---- Circles and private names ----


def all_sources():
    return sorted([*SOURCES, *PACKAGE.rglob("*.pxd")])


def imported_modules(path):
    """The modules of ours that a source imports or cimports: those of the names that
    are modules themselves, and for type checking, too."""
    text = path.read_text()
    found = re.findall(
        r"^[ \t]*from (nghttp2py[\w.]*) c?import (\([^)]*\)|[^\n]*)", text, re.M
    )
    for module, names in found:
        names = re.findall(r"(\w+)(?: as \w+)?", names)
        inside = {f"{module}.{name}" for name in names} & MODULES
        yield from inside
        if len(inside) < len(names) and module in MODULES:
            yield module
    for module in re.findall(r"^[ \t]*c?import (nghttp2py[\w.]*)", text, re.M):
        yield module


MODULES = {module_name(path) for path in all_sources()}


def circular_modules():
    """The modules that can be reached from themselves."""
    graph = {}
    for path in all_sources():
        edges = graph.setdefault(module_name(path), set())
        # A .pxd and its source cimport each other's names without a statement.
        edges |= set(imported_modules(path)) - {module_name(path)}

    def reached(start):
        seen = set()
        waiting = list(graph.get(start, ()))
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph.get(module, ())
        return seen

    return {module for module in graph if module in reached(module)}


def test_no_module_imports_itself_by_way_of_others():
    assert not circular_modules()


OWN = {"self", "cls", "super", "mcs"}
# Public in spite of their names.
PUBLIC_NAMES = {"_asdict", "_replace", "_fields", "_make", "_exit", "_xoptions"}
# asyncio.isfuture() is documented to ask for it.
PUBLIC_NAMES.add("_asyncio_future_blocking")


def foreign_private_uses(path):
    """The uses in a source of a ``_name`` of an object of another file.

    A name is the file's own if any class of it, or a .pxd that it cimports, has it.
    """
    if path.suffix == ".py":
        tree = ast.parse(path.read_text())
        own = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }
        own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        uses = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
                value = node.value
                if isinstance(value, ast.Call):  # super()
                    value = value.func
                if not isinstance(value, ast.Name) or value.id not in OWN:
                    uses.append(node.attr)
                elif isinstance(node.ctx, ast.Store):
                    own.add(node.attr)
    else:
        text = re.sub(r'"""(?s:.*?)"""', "", path.read_text())
        text = re.sub(r"#[^\n]*", "", text)
        text = re.sub(r'"[^"\n]*"', '""', text)
        declared = text
        for pxd in (
            path.with_suffix(".pxd"),
            *(
                ROOT / (module.replace(".", "/") + ".pxd")
                for module in imported_modules(path)
            ),
        ):
            declared += pxd.read_text() if pxd.exists() else ""
        own = set(re.findall(r"(?<!\.)\b(_[a-z]\w*)", declared))
        own |= set(re.findall(r"\bself\.(_[a-z]\w*)\s*(?:=[^=]|:)", text))
        uses = re.findall(r"(?<!\bself)(?<!\bcls)(?<!\s)\.(_[a-z]\w*)", text)
    return [name for name in uses if name not in own | PUBLIC_NAMES]


def test_no_file_uses_the_private_names_of_another():
    for path in SOURCES:
        assert not foreign_private_uses(path), path


@pytest.mark.parametrize("suffix", [".py", ".pyx"])
def test_a_private_name_of_another_is_found(tmp_path, suffix):
    path = tmp_path / f"module{suffix}"
    path.write_text("def f(self, other):\n    self._mine = other._theirs._mine\n")
    assert foreign_private_uses(path) == ["_theirs"]


def source_files():
    if not (ROOT / ".git").exists():
        # An unpacked source distribution, and what may have been made in it.
        made = {"build", "dist", "__pycache__", "vendor"}
        return [
            path
            for path in ROOT.rglob("*")
            if path.is_file()
            and not any(
                part in made or part.startswith(".")
                for part in path.relative_to(ROOT).parts
            )
            and not (path.suffix == ".c" and path.with_suffix(".pyx").is_file())
        ]
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


# Helpers that wait for programs or let a loop turn.
SLEEPERS = {"loops.py", "peers.py", "programs.py", "virtual_time.py", "wheel.py"}


def test_tests_wait_on_conditions_and_do_not_sleep():
    """Time passes in virtual time (``pass_time``), or by ``until``."""
    for path in (ROOT / "tests").glob("*.py"):
        sleeps = re.findall(r"sleep\((?!0\)|0,)[^)]*\)", path.read_text())
        assert not sleeps or path.name in SLEEPERS | {"test_project.py"}, path


def test_no_file_is_longer_than_1200_lines():
    for path in source_files():
        if path.suffix in {".c", ".h", ".py", ".pyx", ".pxd", ".pyi", ".rst", ".md"}:
            assert len(path.read_text().splitlines()) <= 1200, path


def test_a_source_distribution_has_all_that_the_commands_need():
    manifest = (ROOT / "MANIFEST.in").read_text()
    for name in ".ci", ".clang-format", ".stubtest-allowlist", "Makefile":
        assert (ROOT / name).exists()
        assert re.search(rf"\s{re.escape(name)}\s", manifest), name


def test_features_name_the_libraries_in_use():
    """With the oldest releases that will do (docs/install.rst)."""
    features = nghttp2py.features()
    for name, least in (
        ("nghttp2", (1, 52)),
        ("nghttp3", (1, 8)),
        ("ngtcp2", (1, 11)),
        ("gnutls", (3, 7, 5)),
    ):
        assert tuple(map(int, features.pop(name).split("."))) >= least
    assert all(isinstance(value, bool) for value in features.values())


def test_loggers_are_named_as_their_modules_and_documented():
    named = set()
    for path in SOURCES:
        for name in re.findall(
            r"^\w*logger = logging.getLogger\((.+)\)$", path.read_text(), re.M
        ):
            named.add(
                module_name(path) if name == "__name__" else ast.literal_eval(name)
            )
    listed = (ROOT / "docs" / "logging.rst").read_text()
    assert named == set(re.findall(r"^   \* - ``(nghttp2py\..+)``$", listed, re.M))


def run_python(*arguments, timeout=60):
    """Run an interpreter that makes every warning an error; what it printed."""
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# Imports each module in a process of its own, where its packages are imported already,
# as an import of the module alone would do first.  So are the modules of others: to
# import these for each takes minutes on a slow machine.
IMPORTS = """
import asyncio, logging, os, ssl, sys
import click, rich.console

def visit(name):
    if not os.fork():
        __import__(name)
        for child in sys.argv[1:]:
            if child.rpartition(".")[0] == name:
                visit(child)
        os._exit(0)
    assert os.wait()[1] == 0, name

visit("nghttp2py")
for name in sys.argv[1:]:
    __import__(name)  # what they leave at the end may warn, too
"""


def test_every_module_is_imported_without_a_warning_and_by_itself():
    names = {module_name(path) for path in SOURCES} - {"nghttp2py.__main__"}
    assert {name.rpartition(".")[0] for name in names} <= {"", *names}
    run_python("-c", IMPORTS, *names, timeout=110)


def test_what_a_program_does_not_use_is_not_loaded():
    loaded = set(run_python("-c", "import sys, nghttp2py; print(*sys.modules)").split())
    late = {"client", "server", "handler", "asyncio", "h3", "quic", "cli"}
    assert not loaded & {f"nghttp2py.{name}" for name in late}
    assert not loaded & {"asyncio", "ssl", "socket", "logging", "click", "rich"}


def test_the_command_tells_its_version():
    printed = f"nghttp2py, version {nghttp2py.__version__}\n"
    assert run_python("-m", "nghttp2py", "--version") == printed
    command = Path(sys.executable).with_name("nghttp2py")
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    assert done.stdout == printed
