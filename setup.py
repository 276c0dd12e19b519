"""The extension modules: CMake builds libngp, Cython the rest, here they meet.

What cannot be found ends in one sentence that names it, and no traceback.
The environment decides how to build:

NGHTTP2PY_DEBUG=1   no optimisation, debug symbols, C assertions
NGHTTP2PY_TREES=... where the C libraries' source trees are, if not in vendor/
NGHTTP2PY_VENDOR=1  these trees; only GnuTLS from elsewhere
NGHTTP2PY_WERROR=1  C warnings are errors
"""

import ast
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path
from zlib import crc32

import Cython
from Cython.Build import cythonize
from Cython.Compiler.Options import directive_scopes
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
DEBUG = os.environ.get("NGHTTP2PY_DEBUG") == "1"
# One directory a configuration, so that changing it needs no `make clean`.
KIND = "debug" if DEBUG else "release"
BUILD = ROOT / "build" / f"ngp-{KIND}"
# The modules that there are only if CMake has found what they stand on.
OPTIONAL = {
    "http3": ("nghttp2py.h3.",),
    "quic": ("nghttp2py.quic.", "nghttp2py.asyncio.udp"),
}
DIRECTIVES = {
    "language_level": 3,
    "auto_pickle": False,
    # Connections share nothing that is not counted or locked for several threads:
    # docs/design.rst, "Threads".
    "freethreading_compatible": True,
}
# cythonize() compares only the times of sources: here is what else its output needs.
TRANSLATED = f"build/cython-{crc32(f'{Cython.__version__} {DIRECTIVES}'.encode()):08x}"


def fail(sentence):
    raise SystemExit(f"nghttp2py: {sentence}")


def find_program(name):
    """Return the path of a build tool, or None.

    pip installs CMake and ninja beside the interpreter, which need not be on PATH:
    pip itself may have been called by its path.
    """
    beside = os.pathsep.join(
        {os.path.dirname(sys.executable), sysconfig.get_path("scripts")}
    )
    return shutil.which(name) or shutil.which(name, path=beside)


def run(command, what):
    """Run a build tool; on failure its own first complaint is ours."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode == 0:
        # What had to be left out, and why: a notice of CMakeLists.txt.
        for line in done.stdout.splitlines():
            if line.startswith("nghttp2py: "):
                print(line, file=sys.stderr)
        return
    # CMake folds a message over several indented lines and ends it by an empty one.
    output = done.stdout
    if "nghttp2py: " in output:
        sentence = output.split("nghttp2py: ", 1)[1].split("\n\n", 1)[0]
        fail(" ".join(sentence.split()))
    fail(f"{what} failed:\n{output}")


class BuildWithCMake(build_ext):
    """build_ext that first makes the libraries that all modules link."""

    def run(self):
        if self.editable_mode:
            # setuptools would compile in a new scratch directory each time.
            kept = ROOT / "build" / f"{sysconfig.get_config_var('SOABI')}-{KIND}"
            self.build_lib = str(kept / "lib")
            self.build_temp = str(kept / "temp")
            remove_orphans()
        self.parallel = self.parallel or os.cpu_count()
        self.require_tools()
        built = self.build_libngp()
        missing = tuple(
            name
            for part, names in OPTIONAL.items()
            for name in names
            if not built[part]
        )
        self.extensions = [
            extension
            for extension in self.extensions
            if not extension.name.startswith(missing)
        ]
        # Cython allows the freelist directive in a .pyx only; this allows it for the
        # classes of a .py.  Processes that are forked inherit the change.
        directive_scopes["freelist"] = ("cclass", "class")
        multiprocessing.set_start_method("fork", force=True)
        translated = cythonize(
            self.extensions,
            compiler_directives=DIRECTIVES,
            build_dir=TRANSLATED,
            nthreads=self.parallel,
        )
        sources = {extension.name: extension.sources for extension in translated}
        headers = [str(path) for path in (ROOT / "src_c").glob("*.h")]
        for extension in self.extensions:
            sign_classes(extension, Path(sources[extension.name][0]))
            extension.sources = sources[extension.name]
            extension.include_dirs += [
                str(ROOT / "src_c"),
                *filter(None, built["include_dirs"]),
            ]
            extension.extra_objects += filter(None, built["link"])
            if extension.name.startswith(OPTIONAL["quic"]):
                extension.extra_objects += filter(None, built["quic_link"])
            for path in filter(None, built["names"]):
                extension.extra_compile_args += ["-include", path]
            extension.depends.append(built["described"])
            if built["shared"]:
                extension.runtime_library_dirs += [self.place_of_libraries(extension)]
                # Not the libraries: their code may change without the modules.
                extension.depends += headers
                continue
            extension.depends += built["link"][:1]
            if os.uname().sysname == "Linux":
                # What the static libraries define is not for other modules to see.
                extension.extra_link_args += ["-Wl,--exclude-libs,ALL"]
        self.copy_libraries(built)
        super().run()

    def copy_libraries(self, built):
        """Put the libraries of ours, which are the first of each list, into a wheel."""
        # Beside modules they would be taken for such, by pkgutil for one.
        place = Path(self.build_lib, "nghttp2py", "lib")
        if built["shared"] and not self.inplace:
            place.mkdir(parents=True, exist_ok=True)
            for library in filter(None, (built["link"][0], built["quic_link"][0])):
                shutil.copy2(library, place)

    def place_of_libraries(self, extension):
        """Where a module looks for our libraries: in the package, or in build/.

        A tree has modules of several Pythons, with and without optimisation.
        """
        if self.inplace:
            return str(BUILD)
        here = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
        return "/".join([here, *[".."] * (extension.name.count(".") - 1), "lib"])

    def build_extensions(self):
        link = self.compiler.link_shared_object
        self.compiler.link_shared_object = partial(link_whole, link)
        super().build_extensions()

    def require_tools(self):
        compiler = os.environ.get("CC", sysconfig.get_config_var("CC") or "cc").split()[
            0
        ]
        if shutil.which(compiler) is None:
            fail(
                f"the C compiler {compiler!r} is missing; install one "
                "(Debian: apt-get install gcc)."
            )
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            fail(
                "Python.h is missing; install it (Debian: apt-get install python3-dev)."
            )
        if find_program("cmake") is None:
            fail(
                "CMake is missing; install it "
                "(pip install cmake, or Debian: apt-get install cmake)."
            )

    def build_libngp(self):
        cmake = find_program("cmake")
        configure = [
            cmake,
            f"-S{ROOT}",
            f"-B{BUILD}",
            f"-DCMAKE_BUILD_TYPE={'Debug' if DEBUG else 'Release'}",
            f"-DNGP_VENDOR={os.environ.get('NGHTTP2PY_VENDOR', '0')}",
            f"-DNGP_TREES={os.environ.get('NGHTTP2PY_TREES') or ROOT / 'vendor'}",
            f"-DNGP_WERROR={os.environ.get('NGHTTP2PY_WERROR', '0')}",
        ]
        ninja = find_program("ninja")
        cache = BUILD / "CMakeCache.txt"
        if ninja and (
            not cache.exists()
            or "CMAKE_GENERATOR:INTERNAL=Ninja" in cache.read_text("utf-8")
        ):
            # pip's isolated build has another ninja each time.
            configure += ["-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        run(configure, "configuring the C library")
        run(
            [cmake, "--build", str(BUILD), "--parallel", "--target", "ngp"],
            "compiling the C library",
        )
        described = BUILD / "ngp-build.json"
        return json.loads(described.read_text()) | {"described": str(described)}


def link_whole(link, objects, output, *args, **options):
    """Give a module its name when it is linked: one with its name is not built again.

    A build that is interrupted leaves a part, which is newer than its sources.
    """
    part = Path(f"{output}.part")
    part.unlink(missing_ok=True)
    link(objects, str(part), *args, **options)
    part.replace(output)


def calls_of(types):
    """Return how each class of a stub is called, as text without types, by name."""
    calls = {}
    for node in ast.parse(types.read_text("utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        arguments = None
        if any("dataclass" in ast.unparse(entry) for entry in node.decorator_list):
            fields = [entry for entry in node.body if isinstance(entry, ast.AnnAssign)]
            arguments = ast.arguments([], [], None, [], [], None, [])
            for field in fields:
                arguments.args.append(ast.arg(field.target.id))
                if field.value is not None:
                    arguments.defaults.append(default_of(field.value))
        for method in node.body:
            if getattr(method, "name", "") in ("__init__", "__new__"):
                arguments = method.args
                del arguments.args[0]
        if arguments is None and not node.bases:
            arguments = ast.arguments([], [], None, [], [], None, [])
        if arguments is not None:
            for argument in ast.walk(arguments):
                if isinstance(argument, ast.arg):
                    argument.annotation = None
            calls[node.name] = f"{node.name}({ast.unparse(arguments)})"
    return calls


def default_of(value):
    """The default of a dataclass's field, which may stand in a call of field()."""
    if isinstance(value, ast.Call):
        return next(entry.value for entry in value.keywords if entry.arg == "default")
    return value


def sign_classes(extension, source):
    """Let inspect.signature() find how the classes of an extension module are called.

    Cython leaves no trace of it.  CPython looks for it at the head of a type's
    docstring, in front of a line "--"; the stub knows it.
    """
    stub = ROOT.joinpath(*extension.name.split(".")).with_suffix(".pyi")
    types = stub if stub.exists() else stub.with_suffix(".py")
    text = source.read_text("utf-8")
    signed = text
    for name, call in calls_of(types).items():
        head = call.replace("\\", r"\\").replace('"', r"\"") + r"\n--\n\n"
        for start, end in (
            (rf'"{extension.name}\.""{name}", /\*tp_name\*/', r"/\*tp_doc\*/"),
            (rf"_{name}_slots\[\] = {{", r"\n\};"),
        ):
            signed = re.sub(
                # The docstring of the type, and what an earlier build has put there.
                rf'({start}(?:(?!{end}).)*?PyDoc_STR\(")(?:{name}\([^"]*?\\n--\\n\\n)?',
                lambda found, head=head: found[1] + head,
                signed,
                count=1,
                flags=re.DOTALL,
            )
    if signed != text:
        source.write_text(signed, "utf-8")


def compiled_sources():
    """Each .pyx of the package, and each .py that has a .pxd beside it."""
    found = list(ROOT.glob("nghttp2py/**/*.pyx"))
    for declarations in ROOT.glob("nghttp2py/**/*.pxd"):
        source = declarations.with_suffix(".py")
        if source.exists():
            found.append(source)
    return sorted(found)


def remove_orphans():
    """Remove the extension modules in the tree whose source is there no longer.

    An import would still find them.  Those of other interpreters are among them.
    """
    kept = {source.with_suffix("") for source in compiled_sources()}
    for module in ROOT.glob("nghttp2py/**/*.so"):
        if module.parent / module.name.partition(".")[0] not in kept:
            module.unlink()


def extensions():
    """One for each compiled source, named as its path says."""
    for source in compiled_sources():
        path = source.relative_to(ROOT)
        yield Extension(
            ".".join(path.with_suffix("").parts),
            [str(path)],
            # Python's own flags ask for -Wsign-compare; Cython's code ignores it.
            extra_compile_args=[
                "-Wno-sign-compare",
                *(["-O0", "-g"] if DEBUG else ["-O2"]),
            ],
        )


setup(ext_modules=list(extensions()), cmdclass={"build_ext": BuildWithCMake})
