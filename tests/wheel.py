"""The wheel in dist/ is whole: installed where nothing of the tree can help it.

`make test-wheel` runs this, and cibuildwheel, which names a WHEEL; it is no part of
`make test`, for what it tries is made by `make wheel`.  The programs under test run in
an environment of their own that has only the wheel and its `cli` extra, outside the
tree; this file's own does not matter.
"""

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEADLINE = 60

IMPORT_EVERYTHING = """
import pkgutil, nghttp2py
for module in pkgutil.walk_packages(nghttp2py.__path__, "nghttp2py."):
    if not module.name.startswith("nghttp2py.httpx"):  # needs its extra
        __import__(module.name)
"""


@pytest.fixture(scope="session")
def wheel():
    named = os.environ.get("WHEEL")
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    wheels = [Path(named)] if named else list((ROOT / "dist").glob(f"*-{tag}-*.whl"))
    assert len(wheels) == 1, "run make wheel first: it leaves the wheel in dist/"
    return wheels[0].absolute()


@pytest.fixture(scope="session")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        return HeaderParser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="session")
def environment():
    """What a stranger's shell has: no variable of ours, none of the linker's."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LD_", "PYTHON", "NGHTTP2PY", "VIRTUAL_ENV"))
    }


@pytest.fixture(scope="session")
def python(wheel, environment, tmp_path_factory):
    """The interpreter of an environment with the wheel and its command."""
    directory = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    interpreter = directory / "bin" / "python"
    pip = [interpreter, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--only-binary=:all:", f"{wheel}[cli]"],
        check=True,
        cwd=directory,
        env=environment,
    )
    return interpreter


@pytest.fixture
def run(python, environment, tmp_path):
    """Run Python to its end, in a directory that is empty at first."""

    def run(*arguments):
        done = subprocess.run(
            [python, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            cwd=tmp_path,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def running(python, environment, tmp_path):
    """Run Python beside the test, and have it interrupted at the end."""

    @contextlib.contextmanager
    def running(*arguments):
        with subprocess.Popen(
            [python, "-u", *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
        ) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(DEADLINE)

    return running


@pytest.fixture
def pems(certificates, tmp_path):
    """Files of a certificate for loopback, of its key, and of its authority."""
    _, issued, _, authority = certificates
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(str(key))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(chain), append=True)
    return chain, key, authority


def until_listening(port, process):
    end = time.monotonic() + DEADLINE
    while True:
        assert process.poll() is None, "the program has ended"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        assert time.monotonic() < end
        time.sleep(0.01)


def bundled_names(python):
    """The libraries in the wheel, without versions and without auditwheel's mark."""
    (libs,) = python.parent.parent.glob("lib/python*/site-packages/nghttp2py.libs")
    return {re.split(r"-[0-9a-f]{8}\.so", path.name)[0] for path in libs.iterdir()}


def libraries_in(python, maps):
    """Of the C libraries below us none is mapped from elsewhere; give the wheel's.

    But libffi: Python's own ctypes stands on the system's.
    """
    ours = {"libnghttp2", "libnghttp3", "libngtcp2", "libngtcp2_crypto_gnutls"}
    ours |= bundled_names(python) - {"libffi"}
    mapped = {line.split()[-1] for line in maps.splitlines() if ".so" in line}
    names = {
        path: re.split(r"\.so|-[0-9a-f]{8}", Path(path).name)[0] for path in mapped
    }
    inside = {path for path in mapped if "/nghttp2py.libs/" in path}
    assert not {path for path in mapped - inside if names[path] in ours}
    return {names[path] for path in inside}


def test_every_library_has_its_licence_in_the_wheel(wheel, metadata, python):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    information = next(n for n in names if n.endswith("/METADATA")).split("/")[0]
    kept = {
        name.removeprefix(f"{information}/licenses/")
        for name in names
        if name.startswith(f"{information}/licenses/") and not name.endswith("/")
    }
    assert kept == set(metadata.get_all("License-File"))
    # A copyright file of Debian's for each library, or a licence of its source tree.
    for library in bundled_names(python):
        source = library.split("_")[0].replace("libhogweed", "libnettle")[3:]
        assert any(source in name for name in kept), library
    # GnuTLS's own licence in full, not only the name of it.
    assert any("LGPL-2.1" in name or "COPYING" in name for name in kept)
    assert "LGPL-2.1-or-later" in metadata["License-Expression"]


def test_the_bill_of_materials_has_every_library_with_version_and_licence(wheel, run):
    """Of the files that are in the wheel, and the versions that the C code reports."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if "/sboms/" in n)
        bill = json.loads(archive.read(name))
        libraries = {n for n in archive.namelist() if n.startswith("nghttp2py.libs/")}
        assert name.endswith(".dist-info/sboms/nghttp2py.cdx.json")
        listed = {}
        for component in bill["components"]:
            assert component["licenses"][0]["expression"] and component["purl"]
            for entry in component.get("properties", ()):
                listed[entry["value"]] = component
        assert set(listed) == libraries
        for path, component in listed.items():
            digest = hashlib.sha256(archive.read(path)).hexdigest()
            assert component["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert bill["bomFormat"] == "CycloneDX" and bill["specVersion"] == "1.6"
    versions = {c["name"]: c["version"] for c in bill["components"]}
    features = json.loads(run("-m", "nghttp2py", "features", "--json"))
    for library in ("nghttp2", "nghttp3", "ngtcp2", "gnutls"):
        # Debian's number is upstream's with more after it.
        assert versions[f"lib{library}"].startswith(features[library]), library
    own = bill["metadata"]["component"]
    version = run("-c", "import nghttp2py; print(nghttp2py.__version__)").strip()
    assert (own["name"], own["version"]) == ("nghttp2py", version)
    # Each component is one that the package depends on.
    first, *rest = bill["dependencies"]
    references = [component["bom-ref"] for component in bill["components"]]
    assert first == {"ref": own["bom-ref"], "dependsOn": references}
    assert [entry["ref"] for entry in rest] == references
    assert len(set(references)) == len(references)


def test_the_metadata_is_that_of_the_package(metadata, run):
    version = run("-c", "import nghttp2py; print(nghttp2py.__version__)").strip()
    assert metadata["Version"] == version
    extras = {"asgi", "cli", "httpx", "metrics", "qr", "reload", "speed"}
    assert set(metadata.get_all("Provides-Extra")) == extras
    # The library itself requires nothing.
    assert all("extra ==" in wanted for wanted in metadata.get_all("Requires-Dist"))
    assert "Typing :: Typed" in metadata.get_all("Classifier")


def test_every_extension_module_has_its_types(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "nghttp2py/py.typed" in names
    modules = {name.split(".")[0] for name in names if re.search(r"py/.*\.so$", name)}
    # Our libraries, which are no modules.
    modules -= {"nghttp2py/lib/libngpcore", "nghttp2py/lib/libngpquic"}
    assert modules
    # A stub, or the module itself where Cython has compiled Python.
    assert not [name for name in modules if not {f"{name}.pyi", f"{name}.py"} & names]
    assert not [name for name in names if name.endswith((".c", ".pyx"))]


def test_both_protocols_are_in_with_all_their_libraries(run):
    features = json.loads(run("-m", "nghttp2py", "features", "--json"))
    assert features["http3"] and features["quic"]
    origins = features["origins"]
    assert set(origins) == {"nghttp2", "nghttp3", "ngtcp2", "gnutls"}
    assert set(origins.values()) <= {"built in", "bundled"}
    assert origins["gnutls"] == "bundled"


def test_all_modules_stand_on_the_wheels_libraries_alone(run, python):
    maps = run("-c", IMPORT_EVERYTHING + "print(open('/proc/self/maps').read())")
    assert libraries_in(python, maps) == bundled_names(python)


@pytest.mark.parametrize(("options", "version"), [([], 2), (["--http3"], 3)])
def test_a_file_is_served_and_fetched_by_the_wheels_libraries(
    run, running, pems, python, tmp_path, options, version
):
    chain, key, authority = pems
    (tmp_path / "hello.txt").write_text("Hello from a file\n")
    serve = ["serve", tmp_path, "--port=0", "--cert", chain, "--key", key]
    serve.append("--http3" if version == 3 else "--no-http3")
    get = ["get", "--include", "--cacert", authority]
    with running("-m", "nghttp2py", *serve) as server:
        url = server.stdout.readline().split()[2].rstrip("/")
        response = run("-m", "nghttp2py", *get, *options, f"{url}/hello.txt")
        assert response.startswith(f"HTTP/{version} 200")
        assert response.endswith("Hello from a file\n")
        # By now the server's process has done all that serving takes.
        maps = Path(f"/proc/{server.pid}/maps").read_text()
        assert libraries_in(python, maps) <= bundled_names(python)
        assert ("libgnutls" in libraries_in(python, maps)) == (version == 3)


def test_the_readmes_first_example_runs_as_pasted(running, tmp_path):
    readme = (ROOT / "README.md").read_text()
    example = re.search(r"```python\n(.*?)```", readme, re.S)[1]
    command, answer = re.search(r"```console\n\$ (.*)\n(.*)\n```", readme).groups()
    (tmp_path / "example.py").write_text(example)
    port = int(re.search(r":(\d+)/", command)[1])
    with running("example.py") as server:
        until_listening(port, server)
        done = subprocess.run(
            command.split(), capture_output=True, text=True, timeout=DEADLINE
        )
        assert done.stdout.strip() == answer
        # And it was this server that answered.
        assert server.poll() is None
