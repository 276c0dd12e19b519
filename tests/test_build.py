"""The build says which of the C libraries it lacks, and where they would go."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What stands for the source of a C library: a project that installs an empty one.
SOURCE = """
cmake_minimum_required(VERSION 3.20)
project({name} LANGUAGES C)
include(GNUInstallDirs)
file(WRITE ${{CMAKE_BINARY_DIR}}/empty.c "int {name}_empty(void) {{ return 0; }}\\n")
file(WRITE ${{CMAKE_BINARY_DIR}}/lib{name}.pc
  "Name: {name}\\nDescription: a test\\nVersion: 99.0\\n"
  "Libs: -L${{CMAKE_INSTALL_PREFIX}}/${{CMAKE_INSTALL_LIBDIR}} -l{name}\\n"
  "Cflags: -I${{CMAKE_INSTALL_PREFIX}}/include\\n")
add_library({name} STATIC ${{CMAKE_BINARY_DIR}}/empty.c)
install(TARGETS {name})
install(FILES ${{CMAKE_BINARY_DIR}}/lib{name}.pc
        DESTINATION ${{CMAKE_INSTALL_LIBDIR}}/pkgconfig)
"""


@pytest.fixture
def tree(tmp_path):
    """What CMake reads of the tree, and no source unpacked in vendor/."""
    shutil.copytree(ROOT / "src_c", tmp_path / "src_c")
    (tmp_path / "vendor").mkdir()
    for name in "CMakeLists.txt", "vendor/versions.toml":
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def unpack(tree, name):
    (tree / "vendor" / name).mkdir()
    source = SOURCE.format(name=name)
    (tree / "vendor" / name / "CMakeLists.txt").write_text(source)


def configure(tree, *options):
    """Run CMake; give whether it succeeded and its output as one line."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("cmake"),
            f"-S{tree}",
            f"-B{tree / 'build'}",
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode == 0, " ".join(done.stdout.split())


def release(name):
    text = (ROOT / "vendor" / "versions.toml").read_text()
    vendored = text.split(f"[{name}.vendored]")[1]
    return vendored.split('release = "')[1].split('"')[0]


def test_without_nghttp2s_source_a_vendored_build_names_it_and_its_release(tree):
    succeeded, output = configure(tree, "-DNGP_VENDOR=1")
    assert not succeeded
    assert (
        f"nghttp2py: NGHTTP2PY_VENDOR=1 wants nghttp2 {release('nghttp2')} unpacked "
        "in vendor/nghttp2 (see vendor/README.md)." in output
    )


def test_a_vendored_build_says_what_it_leaves_out_and_why(tree):
    unpack(tree, "nghttp2")
    succeeded, output = configure(tree, "-DNGP_VENDOR=1")
    assert succeeded, output
    for name, protocol in ("nghttp3", "HTTP/3"), ("ngtcp2", "QUIC"):
        assert (
            f"nghttp2py: {protocol} is left out: NGHTTP2PY_VENDOR=1 wants "
            f"{name} {release(name)} unpacked in vendor/{name}" in output
        )
    # What is unpacked is taken, though the system has the library as well: the modules
    # find it in our own library.
    built = json.loads((tree / "build" / "ngp-build.json").read_text())
    assert str(tree / "build/vendor/nghttp2/installed/include") in built["include_dirs"]
    assert not any("nghttp2" in Path(path).name for path in built["link"])


def test_the_source_trees_may_be_elsewhere(tree, tmp_path):
    unpack(tree, "nghttp2")
    elsewhere = tmp_path / "sources"
    elsewhere.mkdir()
    (tree / "vendor" / "nghttp2").rename(elsewhere / "nghttp2")
    succeeded, output = configure(tree, "-DNGP_VENDOR=1", f"-DNGP_TREES={elsewhere}")
    assert succeeded, output
    assert "unpacked in sources/nghttp3" in output


def test_the_functions_of_a_library_that_is_built_in_get_names_of_ours(tree):
    """A program may have loaded another release, whose functions have the old names."""
    unpack(tree, "nghttp2")
    header = tree / "vendor/nghttp2/lib/includes/nghttp2/nghttp2.h"
    header.parent.mkdir(parents=True)
    header.write_text("int nghttp2_one(int);\n#define nghttp2_two(x) nghttp2_one(x)\n")
    succeeded, output = configure(tree, "-DNGP_VENDOR=1")
    assert succeeded, output
    names = (tree / "build" / "vendor" / "nghttp2.h").read_text()
    assert "#define nghttp2_one ngp_in_nghttp2_one\n" in names
    assert "nghttp2_two" not in names


def test_a_source_that_cannot_be_built_is_named(tree):
    (tree / "vendor" / "nghttp3").mkdir()
    broken = tree / "vendor" / "nghttp3" / "CMakeLists.txt"
    broken.write_text("message(FATAL_ERROR broken)\n")
    succeeded, output = configure(tree)
    assert not succeeded
    assert "vendor/nghttp3 cannot be built" in output


@pytest.mark.parametrize(
    "statement",
    [
        "import nghttp2py.quic",
        "import nghttp2py.asyncio.quic",
        "from nghttp2py.asyncio import connect",
        "from nghttp2py.asyncio import H3Protocol",
    ],
)
def test_without_libngtcp2_the_import_says_what_to_install(statement):
    missing = {"nghttp2py.quic.connection": None, "nghttp2py.asyncio.udp": None}
    code = f"import sys; sys.modules.update({missing}); {statement}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: nghttp2py was built without QUIC" in done.stderr
    assert "libngtcp2-dev" in done.stderr


@pytest.mark.parametrize("program", ["cmake", "ninja"])
def test_build_tools_beside_the_interpreter_need_not_be_on_path(program):
    """pip puts them there, and may itself have been called by its path."""
    code = """
import runpy, setuptools, sys
setuptools.setup = lambda **_: None
print(runpy.run_path("setup.py")["find_program"](sys.argv[1]))
"""
    found = subprocess.run(
        [sys.executable, "-c", code, program],
        cwd=ROOT,
        env={**os.environ, "PATH": "/nonexistent"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert Path(found) == Path(sys.executable).with_name(program)


def test_extension_modules_whose_source_is_gone_are_removed(tmp_path):
    """Python would import what an earlier build has left."""
    shutil.copy(ROOT / "setup.py", tmp_path)
    package = tmp_path / "nghttp2py" / "h2"
    package.mkdir(parents=True)
    sources = "kept.pyx", "typed.py", "typed.pxd", "plain.py"
    modules = "kept.abi3.so", "kept.cpython-310.so", "typed.abi3.so"
    orphans = "gone.abi3.so", "plain.abi3.so"
    for name in (*sources, *modules, *orphans):
        (package / name).touch()
    code = """
import runpy, setuptools
setuptools.setup = lambda **_: None
runpy.run_path("setup.py")["remove_orphans"]()
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert {path.name for path in package.iterdir()} == {*sources, *modules}


LINKS = """
import runpy, setuptools, sys
setuptools.setup = lambda **_: None
link_whole = runpy.run_path("setup.py")["link_whole"]
def link(objects, output, text, end=None):
    with open(output, "x") as file:
        file.write(text)
        file.flush()
        if end:
            raise end
for end in (KeyboardInterrupt, None):
    try:
        link_whole(link, [], sys.argv[1], "part" if end else "whole", end=end)
    except KeyboardInterrupt:
        with open(sys.argv[1]) as file:
            print(file.read())
"""


def test_an_interrupted_link_leaves_no_module_that_looks_whole(tmp_path):
    module = tmp_path / "module.so"
    module.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", LINKS, module], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert done.returncode == 0
    assert done.stdout == b"old\n"
    assert module.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [module]
