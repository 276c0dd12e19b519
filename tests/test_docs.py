"""Every block of code in docs/ and the pages in Markdown is true.

Each block of Python is a whole program: it is type-checked and run, in a directory
with the files that the pages speak of.  Commands are looked up, options and all.  A
block of a kind that is not known here fails.
"""

import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from peers import free_port, wait_for_port

from nghttp2py.cli import main as nghttp2py_command

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        ROOT / "vendor" / "README.md",
        *(ROOT / "docs").rglob("*.rst"),
    ]
)
SECONDS = 30

# Directives of reStructuredText that hold no code of ours.
PROSE = {
    *("toctree", "list-table", "note", "warning", "data", "attribute", "module"),
    *("autoclass", "autodata", "autofunction", "automodule"),
    *("include", "rubric", "container"),
}


@dataclass
class Block:
    """A block of a page: its kind is its language, or the directive it is in."""

    page: Path
    line: int
    kind: str
    text: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def indented(lines, start):
    """The indented block from a line on, without its indentation, and its end."""
    end = start
    while end < len(lines) and (not lines[end].strip() or lines[end][0] == " "):
        end += 1
    return textwrap.dedent("\n".join(lines[start:end])).strip("\n"), end


def blocks_of_rst(page):
    lines = page.read_text().split("\n")
    for i, line in enumerate(lines):
        if found := re.match(r"\s*\.\. ([\w-]+)::\s*(.*)", line):
            directive, argument = found.groups()
            text = indented(lines, i + 1)[0]
            if directive == "code-block":
                text = re.sub(r"\A(:[\w-]+:.*\n)+\n?", "", text)
                yield Block(page, i + 1, argument, text)
            elif directive == "literalinclude":
                yield Block(page, i + 1, "example", argument)
            elif directive == "raw":
                yield Block(page, i + 1, f"raw {argument}", text)
            elif directive not in PROSE:
                yield Block(page, i + 1, directive, text)
        elif line.rstrip().endswith("::") and not line.startswith(".. "):
            yield Block(page, i + 1, "a literal block", indented(lines, i + 1)[0])
        elif line.lstrip().startswith(">>> "):
            yield Block(page, i + 1, "doctest", line)


def blocks_of_markdown(page):
    text = page.read_text()
    for found in re.finditer(
        r"^```(.*)\n((?:.*\n)*?)```$|^(?<=\n\n)((?: {4}.*\n)+)", text, re.M
    ):
        line = text.count("\n", 0, found.start()) + 1
        kind, fenced, plain = found.groups()
        if plain is not None:
            yield Block(page, line, "sh", textwrap.dedent(plain))
        else:
            yield Block(page, line, kind, fenced)


def collect():
    for page in PAGES:
        reader = blocks_of_rst if page.suffix == ".rst" else blocks_of_markdown
        yield from reader(page)


BLOCKS = list(collect())
KINDS = {
    "python",
    "console",
    "sh",
    "example",
    "raw html",
}


def of_kind(*kinds):
    return pytest.mark.parametrize(
        "block", [b for b in BLOCKS if b.kind in kinds], ids=str
    )


def test_every_block_is_of_a_kind_that_is_checked():
    assert not [f"{b}: {b.kind}" for b in BLOCKS if b.kind not in KINDS]
    assert {"python", "console", "sh", "example"} <= {b.kind for b in BLOCKS}


# ---- Python ----


# The application that is main:app in the pages.
MAIN = """
from typing import Any


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"Hello!"})
"""
EXAMPLE_ORG = """
from nghttp2py.asyncio import Server, Stream

async def app(stream: Stream) -> None:
    await stream.send_response(200, {"content-type": "text/plain"}, b"Hello!")

paths = "cert.pem", "key.pem"
Server(app, ("localhost", 8443), ssl=paths, http3=True).serve_forever()
"""
PROGRAMS = [b for b in BLOCKS if b.kind == "python"]


def test_the_types_of_every_block_of_python_are_right(tmp_path):
    """Strictly, but for functions without annotations, which readers want short."""
    (tmp_path / "main.py").write_text(MAIN)
    for i, block in enumerate(PROGRAMS):
        place = re.sub(r"\W", "_", f"block_{block}")
        (tmp_path / f"{place}_{i}.py").write_text(block.text)
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--no-error-summary"),
            *("--allow-untyped-defs", "--allow-incomplete-defs"),
            *("--allow-untyped-calls", f"--cache-dir={tmp_path}/cache"),
            # A transport of httpx is one of httpx2, too: see nghttp2py/httpx.
            "--allow-subclassing-any",
            *("--config-file=", str(tmp_path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def serves(block):
    """Whether a program goes on until a signal comes."""
    return re.search(
        r"serve_forever\(|\brun\((app|\"main)|server\.serve\(|trigger=stop"
        r"|Event\(\)\.wait\(\)|\bserve\(\s*app",
        block.text,
    ) and not re.search(r"should_exit|call_later", block.text)


def asks_another(block):
    """Whether a program asks the server of the block before it, on its page."""
    return "127.0.0.1:8443" in block.text


@pytest.fixture
def place(certificates, paths, tmp_path, monkeypatch):
    """A directory with what the programs of the pages find in theirs.

    The authorities that certifi and the system have are the tests' own.
    """
    _, _, client, authority = certificates
    there = tmp_path / "there"
    there.mkdir()
    chain, key = (path.read_text() for path in paths)
    (there / "cert.pem").write_text(chain)
    (there / "key.pem").write_text(key)
    (there / "authority.pem").write_text(Path(authority).read_text())
    client.private_key_and_cert_chain_pem.write_to_path(str(there / "client.pem"))
    (there / "main.py").write_text(MAIN)
    (there / "certifi.py").write_text(f"def where():\n    return {authority!r}\n")
    monkeypatch.setenv("SSL_CERT_FILE", authority)
    monkeypatch.setenv("PYTHONPATH", str(there))
    monkeypatch.chdir(there)
    return there


@pytest.mark.parametrize(
    "block",
    [
        b
        for b in PROGRAMS
        if not (serves(b) or asks_another(b) or "example.org" in b.text)
    ],
    ids=str,
)
def test_a_program_that_ends_runs(block, place):
    compare_with_comments(block.text, output_of(with_free_ports(block.text)[0]))


def output_of(program):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=True,
        timeout=SECONDS,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def compare_with_comments(text, shown):
    """What a comment after print() says is what it has printed, up to an ellipsis."""
    comments = re.findall(r"^\s*print\(.*\)  # (.*)$", text, re.M)
    if comments:
        lines = [line for line in shown.splitlines() if line]
        for said, line in zip(comments, lines, strict=True):
            assert line.startswith(said.removesuffix("..."))
            assert said.endswith("...") or line == said


# The ports that the pages use: for TCP, and for QUIC alone.
PORTS = r"(?<![\w.])(4433|8000|8080|8443|9090)\b"


def with_free_ports(text):
    """A program at ports that are free here, and these by the page's."""
    ports = {name: free_port() for name in sorted(set(re.findall(PORTS, text)))}
    return re.sub(PORTS, lambda found: str(ports[found[0]]), text), ports


@contextlib.contextmanager
def served(block):
    """A server that a block starts, at other ports; they are given when it is ready."""
    text, ports = with_free_ports(block.text)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as server:
        try:
            for name, port in ports.items():
                if name != "4433":
                    wait_for_port(port, server)
            yield ports
        finally:
            server.terminate()
    # What asyncio.run() runs is ended by the signal, unless the program handles it.
    ends = (0, -signal.SIGTERM) if "asyncio.run(" in block.text else (0,)
    assert server.returncode in ends


@pytest.mark.parametrize("block", [b for b in PROGRAMS if serves(b)], ids=str)
def test_a_program_that_serves_runs(block, place):
    with served(block) as ports:
        assert ports
        if "4433" in ports:
            assert answer("--http3-only", ports["4433"]).startswith("HTTP/3 200")
        if "workers=" in block.text:
            # The supervisor listens before it handles signals.
            url = f"http://127.0.0.1:{ports['8000']}/"
            with urllib.request.urlopen(url, timeout=SECONDS) as response:
                assert response.read() == b"Hello!"
        if "create_server(" in block.text:
            # It listens before it serves, and would be ended by a signal until then.
            assert answer("--http2", ports["8443"]).startswith("HTTP/2 200")


def answer(version, port):
    """The answer of a server that may not have bound its port yet."""
    command = [sys.executable, "-m", "nghttp2py", "get", "--include", version]
    for _ in range(100):
        done = subprocess.run(
            [*command, f"https://localhost:{port}/"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        if done.returncode == 0:
            return done.stdout
    raise AssertionError(done.stderr)


@pytest.mark.parametrize(
    "block",
    [b for b in PROGRAMS if "example.org" in b.text and not serves(b)],
    ids=str,
)
def test_a_program_that_asks_example_org_gets_an_answer(block, place):
    """Of a server here, which stands for it."""
    program = Block(block.page, block.line, "python", EXAMPLE_ORG)
    with served(program) as ports:
        port = ports["8443"]
        text = block.text.replace('"example.org", 443', f'"localhost", {port}')
        text = text.replace("example.org", f"localhost:{port}")
        compare_with_comments(block.text, output_of(text))


FRONT = ["README.md", "index.rst"]


def blocks_with(page, kind, text):
    return [
        b for b in BLOCKS if b.page.name == page and b.kind == kind and text in b.text
    ]


@pytest.mark.parametrize(
    ("page", "start", "shown"),
    [
        *((page, "run(app", "README.md") for page in FRONT),
        ("server.rst", "8080), Hello).serve_forever()", "server.rst"),
    ],
)
def test_the_first_server_of_a_page_answers(page, start, shown):
    """As pasted, but for the port, which may be taken here."""
    (program,) = blocks_with(page, "python", start)
    (session,) = blocks_with(shown, "console", "curl --http2-prior-knowledge")
    command, _, output = session.text.partition("\n")
    with served(program) as ports:
        command = command.replace("8080", str(ports["8080"]))
        answer = subprocess.run(
            ["curl", "-sS", *shlex.split(command)[2:]],
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
        ).stdout
    assert answer.rstrip() == output.rstrip()


@pytest.mark.parametrize("page", FRONT)
def test_the_client_of_a_front_page_reaches_its_server_over_http3(page):
    server, client = blocks_with(page, "python", "8443")
    with served(server) as ports:
        shown = output_of(client.text.replace("8443", str(ports["8443"])))
    compare_with_comments(client.text, shown)


def test_the_second_request_of_the_page_on_fetching_uses_http3():
    server, client = blocks_with("fetch.rst", "python", "8443")
    with served(server) as ports:
        shown = output_of(client.text.replace("8443", str(ports["8443"])))
    assert shown.splitlines() == ["200 HTTP/2", "200 HTTP/3"]


def test_a_program_that_serves_files_serves_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file")
    programs = [b for b in PROGRAMS if "Site(" in b.text and "auth=" not in b.text]
    assert {b.page.name for b in programs} == {"README.md", "cli.rst"}
    for program in programs:
        with served(program) as ports:
            url = f"http://127.0.0.1:{ports['8080']}/file"
            with urllib.request.urlopen(url) as response:
                assert response.read() == b"a file"


@of_kind("example")
def test_an_included_program_is_one_that_tests_run(block):
    path = (block.page.parent / block.text).resolve()
    assert path.is_relative_to(ROOT / "examples") and path.is_file()
    assert any(
        path.name in test.read_text() or f'"{path.stem}"' in test.read_text()
        for test in (ROOT / "tests").glob("test_*.py")
        if test != Path(__file__)
    )


@of_kind("raw html")
def test_a_drawing_that_is_put_in_is_there_and_says_what_it_shows(block):
    name = re.fullmatch(r":file: (\S+\.svg)", block.text)
    assert name is not None
    drawing = (block.page.parent / name[1]).read_text()
    assert "<title" in drawing and 'role="img"' in drawing


# ---- Commands ----


def commands(block):
    """Each command line of a block, without comments, with what it printed."""
    text = block.text.replace("\\\n", "")
    if block.kind == "sh":
        lines = [(line, "") for line in text.split("\n")]
    else:
        parts = re.split(r"^\$ ", text, flags=re.M)
        assert not parts[0].strip(), f"{block} begins with no command"
        lines = [part.partition("\n")[::2] for part in parts[1:]]
    for line, output in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words = list(lexer)
        if words:
            yield line, words, output.rstrip()


@functools.cache
def help_of(*command):
    """What a program says of its options."""
    assert shutil.which(command[0]), f"{command[0]} is not installed"
    shown = subprocess.run([*command], capture_output=True, text=True, timeout=SECONDS)
    return shown.stdout + shown.stderr


def options_are_in(text, words):
    for word in words:
        if word.startswith("-") and word != "-":
            name = word.split("=")[0] if word.startswith("--") else word[:2]
            pattern = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
            assert re.search(pattern, text), f"there is no option {name}"


def check_nghttp2py(words):
    """Options and arguments fit the command; files need not be there."""
    command, path = nghttp2py_command, ["nghttp2py"]
    while isinstance(command, click.Group) and words and words[0][0] != "-":
        context = click.Context(command, info_name=" ".join(path))
        found = command.get_command(context, words[0])
        assert found is not None, words[0]
        path.append(words[0])
        command, words = found, words[1:]
    context = click.Context(command, info_name=" ".join(path))
    command.make_parser(context).parse_args(list(words))


def check_make(words):
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, assigned, _ = word.partition("=")
        pattern = rf"\b{name}\b" if assigned else rf"^{re.escape(name)}:"
        assert re.search(pattern, makefile, re.M), word


def check_pip(words):
    options_are_in(help_of(sys.executable, "-m", "pip", "install", "--help"), words)
    assert words[0] == "install"
    project = (ROOT / "pyproject.toml").read_text()
    for word in words[1:]:
        for extra in re.findall(r"[\[,](\w+)", word):
            assert re.search(rf"^{extra} = ", project, re.M), extra
        assert (
            word[0] == "-"
            or re.match(r"nghttp2py\b|\.|dist/|[\w.]+\.whl", word)
            or re.search(rf'^    "{word}\b', project, re.M)  # of a group
        )


def check_apt_get(words):
    packages = (ROOT / "vendor" / "install-deps").read_text()
    for word in words:
        if word not in ("install", "update") and word[0] != "-":
            assert re.search(rf"^{re.escape(word)} ", packages, re.M), word


def check_fetch_sources(words):
    assert os.access(ROOT / "vendor" / "fetch-sources", os.X_OK)
    assert len(words) == 1  # the directory


def check_python(words):
    if words[:2] == ["-m", "nghttp2py"]:
        check_nghttp2py(words[2:])
    elif words[0] == "-m":
        assert words[1] in ("venv", "pip", "build", "http.server", "pytest")
    else:
        assert (ROOT / words[0]).is_file() or words[0] == "-c", words[0]


def check_install_deps(words):
    script = (ROOT / "vendor" / "install-deps").read_text()
    assert words and all(re.search(rf"^  {word}\)", script, re.M) for word in words)


def check_mkcert(words):
    known = {"-CAROOT", "-cert-file", "-install", "-key-file"}
    assert {word for word in words if word[0] == "-"} <= known


def check_git(words):
    assert words[0] in ("clone", "commit", "log", "rebase", "add")


CHECKS = {
    "apt-get": check_apt_get,
    # A shell's own.
    **dict.fromkeys((".", "cd"), lambda words: None),
    # test_h3_chromium.py and test_quickstart_chromium.py run what is said of these.
    **dict.fromkeys(("base64", "chromium", "openssl"), lambda words: None),
    # The recipes are run, and the tutorial: see recipes.py.
    **dict.fromkeys(
        ("cat", "certbot", "cmp", "echo", "haproxy", "head", "kill", "mkdir"),
        lambda words: None,
    ),
    # And these, by test_recipes_examples.py.
    **dict.fromkeys(("seq", "sh", "tshark"), lambda words: None),
    "curl": lambda words: options_are_in(help_of("curl", "--help", "all"), words),
    "git": check_git,
    "h2load": lambda words: options_are_in(help_of("h2load", "--help"), words),
    "make": check_make,
    "mkcert": check_mkcert,
    "nghttp": lambda words: options_are_in(help_of("nghttp", "--help"), words),
    "nghttp2py": check_nghttp2py,
    "pip": check_pip,
    "printf": lambda words: None,
    "python": check_python,
    "python3": check_python,
    "vendor/fetch-sources": check_fetch_sources,
    "vendor/install-deps": check_install_deps,
}


def check_command(words):
    while re.fullmatch(r"[A-Z0-9_]+=.*", words[0]):
        check_variable(words.pop(0).partition("=")[0])
    if words[0] == "sudo":
        words = words[1:]
    name = words[0].removeprefix(".venv/bin/")
    assert name in CHECKS, f"{name} is a command that no test knows"
    CHECKS[name](words[1:])


def check_variable(name):
    sources = "setup.py", "CMakeLists.txt", "Makefile", "benchmarks", "nghttp2py"
    sources += "tests", "vendor/install-deps", "vendor/README.md"
    paths = [p for s in sources for p in ((ROOT / s), *(ROOT / s).rglob("*.py"))]
    assert any(name in p.read_text() for p in paths if p.is_file()), name


@of_kind("console", "sh")
def test_the_commands_of_a_block_exist_with_their_options(block):
    for line, words, _ in commands(block):
        simple, files = [], False
        for word in [*words, ";"]:
            if word in ("<", ">", ">>"):
                files = True
            elif set(word) <= set("|&;"):
                assert simple, line
                check_command(simple)
                simple, files = [], False
            elif not files:
                simple.append(word)


@of_kind("console", "sh")
def test_what_the_comments_of_a_block_name_exists(block):
    for comment in re.findall(r"(?<!\S)#.*", block.text):
        for target in re.findall(r"\bmake ([a-z][\w-]*)", comment):
            check_make([target])
        for name in re.findall(r"\b([A-Z][A-Z0-9_]+)=", comment):
            check_variable(name)


SHOWN = [
    (str(block), line, output)
    for block in BLOCKS
    if block.kind == "console"
    for line, _, output in commands(block)
    if output
]
SESSIONS = [session for session in SHOWN if session[1].startswith("printf ")]


@pytest.mark.parametrize(
    ("block", "line", "output"), SESSIONS, ids=[s[0] for s in SESSIONS]
)
def test_what_is_piped_into_a_command_gives_what_the_page_shows(block, line, output):
    path = f"PATH='{Path(sys.executable).parent}':$PATH\n"
    shown = subprocess.run(
        ["sh", "-c", path + line], capture_output=True, text=True, check=True
    )
    assert shown.stdout.rstrip() == output


def test_what_serve_says_is_what_the_page_shows(tmp_path):
    """As it stands there, but for the port, which may be taken here, and the key."""
    ((_, line, output),) = [s for s in SHOWN if s[1] == "nghttp2py serve"]
    with subprocess.Popen(
        [sys.executable, "-u", "-m", *shlex.split(line), "--port=0"],
        cwd=tmp_path,
        # The certificate is kept below the home directory.
        env={**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": ""},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            said = "".join(server.stdout.readline() for _ in output.split("\n"))
        finally:
            server.terminate()
    said = re.sub(r":\d+(/| )", r":8443\1", said)
    said = re.sub(r"(spki-list=)\S+", r"\1...", said)
    assert said == output + "\n"


def test_whatever_a_block_shows_is_compared_with_what_is_printed():
    """Here, with the first server, by test_quickstart_chromium.py, or by recipes.py."""
    others = [
        (place.split(":")[0], line.split()[:2])
        for place, line, _ in SHOWN
        if not line.startswith("printf ")
        and not re.match(r"docs/(cookbook/|tutorial)", place)
    ]
    assert others == [
        ("README.md", ["curl", "--http2-prior-knowledge"]),
        ("docs/cli.rst", ["nghttp2py", "serve"]),
        ("docs/quickstart.rst", ["curl", "http://127.0.0.1:8000/"]),
        ("docs/quickstart.rst", ["curl", "--http2-prior-knowledge"]),
        ("docs/quickstart.rst", ["nghttp2py", "get"]),
        ("docs/server.rst", ["curl", "--http2-prior-knowledge"]),
    ]


# ---- What the text names ----


def literals():
    """Each piece of code in the text of a page, with its place."""
    for page in PAGES:
        marks = r"``(.+?)``" if page.suffix == ".rst" else r"(?<!`)`([^`\n]+)`(?!`)"
        for found in re.finditer(marks, page.read_text(), re.S):
            yield page.relative_to(ROOT), " ".join(found[1].split())


def test_the_files_make_targets_and_variables_that_the_text_names_exist():
    for page, text in literals():
        if re.match(r"(nghttp2py|src_c|tests|benchmarks|examples|docs|vendor)/", text):
            if not re.search(r"[<>{ ]|build/|vendor/\w+$", text):
                assert list(ROOT.glob(text.rstrip("/"))), f"{page}: {text}"
        elif found := re.fullmatch(r"make( [\w-]+)+", text):
            check_make(found[0].split()[1:])
        elif found := re.match(r"(NGHTTP2PY_\w+)", text):
            check_variable(found[1])


def test_the_options_that_the_page_of_the_command_names_exist():
    options = set()
    waiting = [nghttp2py_command]
    while waiting:
        command = waiting.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            names = command.list_commands(context)
            waiting += [command.get_command(context, name) for name in names]
        options |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    options |= {"--help"}
    for page, text in literals():
        if page.name in ("cli.rst", "hpack.rst"):
            named = re.match(r"--?[a-z][\w-]*$", text)
            assert named is None or text in options, f"{page}: {text}"
