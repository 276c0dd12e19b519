"""The ``nghttp2py hpack`` command."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

import nghttp2py
from nghttp2py.cli import main
from nghttp2py.hpack import HDDeflater, HDInflater, NeverIndexed

# RFC 7541, C.4.1, and the list that it stands for.
WIRE = "828684418cf1e3c2e5f23a6ba0ab90f4ff"
LIST = [
    [":method", "GET"],
    [":scheme", "http"],
    [":path", "/"],
    [":authority", "www.example.com"],
]


@pytest.fixture
def run():
    def run(*arguments, stdin=None):
        command = ["hpack", *map(str, arguments)]
        return CliRunner().invoke(main, command, input=stdin)

    return run


def test_the_version_is_told():
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"nghttp2py, version {nghttp2py.__version__}\n"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(LIST),
        json.dumps(dict(LIST)),
        json.dumps([{name: value} for name, value in LIST]),
        "".join(f"{name}: {value}\n" for name, value in LIST),
        "".join(f"{name}:{value}\r\n" for name, value in LIST) + "\r\n\r\n",
    ],
    ids=["pairs", "object", "objects", "lines", "lines with CR"],
)
def test_a_header_list_is_encoded_from_each_form(run, text):
    result = run("encode", stdin=text)
    assert (result.exit_code, result.output) == (0, WIRE + "\n")


def test_lists_of_a_file_share_a_table(run, tmp_path):
    file = tmp_path / "headers"
    file.write_text(":path: /\nx-a: b\n\n[['x-a', 'b']]\nx-a: b".replace("'", '"'))
    result = run("encode", file)
    deflater = HDDeflater()
    expected = [
        deflater.deflate(headers).hex()
        for headers in ([(":path", "/"), ("x-a", "b")], [("x-a", "b")], [("x-a", "b")])
    ]
    assert result.output.split() == expected
    assert expected[1] == "be"


def test_files_are_connections_of_their_own(run, tmp_path):
    for name in "one", "two":
        (tmp_path / name).write_text("x-a: b")
    first, second = run("encode", tmp_path / "one", tmp_path / "two").output.split()
    assert first == second


@pytest.mark.parametrize("size", [0, 100, 4096, 8192])
def test_a_table_size_is_understood_at_both_ends(run, size):
    text = "\n".join([json.dumps([[f"x-{i}", "value"] for i in range(40)])] * 2)
    encoded = run("encode", "--table-size", size, stdin=text).output
    result = run("decode", "-S", size, stdin=encoded)
    assert (result.exit_code, result.output) == (0, text + "\n")
    tables = run("table", "-S", size, stdin=encoded).output
    assert tables.count(f" of {size} bytes\n") == 2


def test_a_block_is_decoded_to_json(run):
    result = run("decode", stdin=f"{WIRE}\n\n 82 86\n")
    lists = [json.loads(line) for line in result.stdout.splitlines()]
    assert lists == [LIST, [[":method", "GET"], [":scheme", "http"]]]


@pytest.mark.parametrize(
    "text", ["8286", "82:86", "82 86", "0x82 0x86", "0x82, 0x86", "82-86", "0x8286"]
)
def test_digits_are_read_as_programs_copy_them(run, text):
    expected = [[":method", "GET"], [":scheme", "http"]]
    for result in run("decode", text), run("decode", stdin=text):
        assert json.loads(result.stdout) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("82:8", "<argument>:1: not hexadecimal digits of whole octets: there are 3"),
        ("82:c6", "<argument>:1: malformed header block at octet 1: index 70 is not"),
        ("missing", "'missing': No such file or directory"),
    ],
)
def test_what_is_wrong_with_an_argument_has_its_place(run, text, sentence):
    result = run("decode", text)
    assert result.exit_code != 0 and sentence in result.stderr
    if "c6" in text:
        assert "was the capture begun in the middle" in result.stderr


def test_a_character_that_is_no_digit_has_its_column(run):
    result = run("decode", stdin="82\n0x82 8g\n")
    assert result.stderr == ("<stdin>:2: not hexadecimal digits: 'g' at column 7\n")


def test_json_keeps_marks_and_bytes_that_are_not_utf8(run):
    field = NeverIndexed(b"x-key", b"\xff\xc3\xbc\x00")
    block = HDDeflater().deflate([field])
    decoded = run("decode", stdin=block.hex()).output
    encoded = run("encode", stdin=decoded).output
    assert bytes.fromhex(encoded) == block
    (received,) = HDInflater().inflate(bytes.fromhex(encoded))
    assert isinstance(received, NeverIndexed)


def test_a_binary_block_is_decoded(run, tmp_path):
    file = tmp_path / "block"
    file.write_bytes(bytes.fromhex(WIRE))
    assert json.loads(run("decode", "--binary", file).output) == LIST


def test_a_block_is_decoded_to_a_table(run):
    block = HDDeflater().deflate(
        [("x-a", "[red]b\x1b[31m"), NeverIndexed("x-key", "secret")]
    )
    output = run("decode", "--format", "table", stdin=block.hex()).output
    assert "block 1" in output
    assert "[red]b\\x1b[31m" in output
    (line,) = [line for line in output.splitlines() if "secret" in line]
    assert "yes" in line


def test_the_table_after_each_block_is_shown(run):
    deflater = HDDeflater()
    blocks = [
        deflater.deflate(headers).hex()
        for headers in ([("foo", "bar")], [("foo", "bar"), ("a", "\x1b")])
    ]
    result = run("table", stdin="\n".join(blocks))
    assert result.output == (
        "block 1: 1 entries, 38 of 4096 bytes\n"
        "[1] (s=38) foo: bar\n"
        "block 2: 2 entries, 72 of 4096 bytes\n"
        "[1] (s=34) a: \\x1b\n"
        "[2] (s=38) foo: bar\n"
    )
    assert (
        "[1] (s=38) (r=n) foo: bar\n"
        in run("table", "--refset", stdin=blocks[0]).output
    )


def test_the_ratio_of_each_file_is_told(run, tmp_path):
    lines = tmp_path / "lines"
    lines.write_text("x-a: b\n\nx-a: b\n")
    story = tmp_path / "story.json"
    story.write_text(json.dumps({"cases": [{"headers": LIST}]}, indent=1))
    empty = tmp_path / "empty"
    empty.write_text("")
    result = run("ratio", lines, story, empty)
    # 3 + 1 bytes twice; a literal of 7 bytes and then one byte of index.
    assert result.output.splitlines() == [
        f"{lines}: 8 bytes, 8 coded, ratio 1.000",
        f"{story}: 52 bytes, 17 coded, ratio 0.327",
        f"{empty}: 0 bytes, 0 coded, ratio -",
        "total: 60 bytes, 25 coded, ratio 0.417",
    ]


def test_a_bar_is_shown_on_a_terminal_when_it_takes_long(run, tmp_path, monkeypatch):
    names = [tmp_path / str(i) for i in range(3)]
    for name in names:
        name.write_text("x-a: b")
    assert run("ratio", *names).stderr == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    assert run("ratio", *names).stderr == ""
    monkeypatch.setattr("nghttp2py.cli.hpack._PATIENCE", -1.0)
    result = run("ratio", *names)
    assert "3 of 3 files" in result.stderr
    assert "files" not in result.stdout


BAD_LINES = {
    "no colon": ("encode", "a: b\nfield\n", 2, "'name: value'"),
    "deep JSON": ("encode", "[" * 200_000, 1, "nested too deeply"),
    "broken JSON": ("encode", '\n[["a", "b"]\n', 2, "not JSON"),
    "an open string": ("encode", '["a', 1, "JSON: Unterminated string starting at col"),
    "a value that is no string": ("encode", '[["a", 1]]', 1, "must be a string, not 1"),
    "a field of one element": ("encode", '[["a"]]', 1, "must be [name, value]"),
    "a mark that is no truth": ("encode", '[["a", "b", 1]]', 1, "true or false"),
    "half a surrogate pair": ("encode", '[["a", "\\ud800"]]', 1, "is not text"),
    "a line that is not UTF-8": ("encode", b"a: b\n\xff: b\n", 2, "not UTF-8"),
    "no hexadecimal digits": ("decode", "82\n8g\n", 2, "not hexadecimal"),
    "half a byte": ("table", "82\n8\n", 2, "not hexadecimal"),
    "a malformed block": ("decode", "82\n80\n", 2, "malformed header block"),
    "bad lines to measure": ("ratio", "a: b\n\nc\n", 3, "'name: value'"),
}


@pytest.mark.parametrize(
    ("command", "text", "line", "reason"), BAD_LINES.values(), ids=BAD_LINES
)
def test_a_bad_line_is_reported_with_its_place(
    run, tmp_path, command, text, line, reason
):
    file = tmp_path / "bad"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = run(command, file)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{file}:{line}: ")
    assert reason in result.stderr
    assert run(command, stdin=text).stderr.startswith(f"<stdin>:{line}: ")


def test_after_a_bad_file_the_next_is_read(run, tmp_path):
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.write_text("82\nxy\n82\n")
    good.write_text("84\n")
    result = run("decode", bad, good)
    assert result.exit_code == 1
    assert result.stdout == '[[":method", "GET"]]\n[[":path", "/"]]\n'


def test_a_header_list_above_the_bound_is_reported(run):
    result = run("decode", "--max-list-size", 41, stdin="82")
    assert result.exit_code == 1
    assert "larger than 41 bytes" in result.stderr


def test_a_missing_file_is_reported(run, tmp_path):
    result = run("decode", tmp_path / "none")
    assert result.exit_code == 2
    assert "No such file" in result.stderr


def story(lists, sizes=None):
    """Make an hpack-test-case story, as an encoder of our own codes it."""
    deflater = HDDeflater(1 << 16)
    cases = []
    for seqno, headers in enumerate(lists):
        case = {"seqno": seqno}
        if sizes:
            case["header_table_size"] = sizes[seqno]
            deflater.change_table_size(sizes[seqno])
        case["wire"] = deflater.deflate(headers).hex()
        case["headers"] = [{name: value} for name, value in headers]
        cases.append(case)
    return {"description": "made for a test", "cases": cases}


LISTS = [
    [(":path", "/"), ("x-a", "b"), ("x-a", "c")],
    [("x-a", "b"), ("cookie", "a=b")],
    [],
    [("x-a", "c"), ("x-long", "v" * 300)],
]


def test_stories_are_checked(run, tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "one.json").write_text(json.dumps(story(LISTS)))
    (tmp_path / "below" / "two.json").write_text(
        json.dumps(story(LISTS, [4096, 100, 0, 8192]), indent=2)
    )
    (tmp_path / "README").write_text("not a story")
    result = run("check", tmp_path)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"PASS {tmp_path / 'below' / 'two.json'} (4 cases)",
        f"PASS {tmp_path / 'one.json'} (4 cases)",
        "2 of 2 stories passed",
    ]
    assert run("check", tmp_path / "one.json").exit_code == 0


def change(case, **fields):
    made = story(LISTS)
    made["cases"][case].update(fields)
    return made


BAD_STORIES = {
    "other headers": (change(1, headers=[]), "case 1: expected [], got [["),
    "fields in another order": (
        change(0, headers=[{"x-a": "b"}, {":path": "/"}, {"x-a": "c"}]),
        "case 0: expected",
    ),
    "a malformed block": (change(2, wire="80"), "case 2: malformed header block"),
    "an unannounced table size": (change(1, header_table_size=0), "case 1: malformed"),
    "wire that is no hex": (change(1, wire="8"), "case 1: wire must be hex"),
    "wire that is no string": (change(1, wire=8), "case 1: wire must be hex"),
    "no wire": (change(3, wire=None), "case 3: it has no wire"),
    "a bad size": (change(0, header_table_size=-1), "case 0: header_table_size must"),
    "a bad number": (change(0, seqno="x"), "case 0: seqno must"),
    "bad headers": (change(0, headers=[["a"]]), "case 0: a field must be"),
    "a case that is no object": ({"cases": [1]}, "case 0: it is no object"),
    "no cases": ({"story": []}, "no array of cases"),
}


@pytest.mark.parametrize(("bad", "reason"), BAD_STORIES.values(), ids=BAD_STORIES)
def test_a_story_that_does_not_hold_fails(run, tmp_path, bad, reason):
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    (tmp_path / "good.json").write_text(json.dumps(story(LISTS)))
    result = run("check", tmp_path)
    assert result.exit_code == 1
    failed, passed, summary = result.output.splitlines()
    assert failed.startswith(f"FAIL {tmp_path / 'bad.json'}: ")
    assert reason in failed
    assert passed.startswith("PASS")
    assert summary == "1 of 2 stories passed"


def test_a_story_that_is_not_json_fails_with_its_line(run, tmp_path):
    (tmp_path / "bad.json").write_text('{\n"cases": [,]}')
    result = run("check", tmp_path / "bad.json")
    assert result.exit_code == 1
    assert result.output.startswith(f"FAIL {tmp_path / 'bad.json'}:2: not JSON")


def test_a_directory_without_stories_is_an_error(run, tmp_path):
    result = run("check", tmp_path)
    assert result.exit_code == 1
    assert "no *.json file" in result.stderr


@pytest.mark.parametrize("package", ["click", "rich"])
def test_a_missing_package_is_named_in_one_sentence(package):
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from nghttp2py.__main__ import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"nghttp2py: the command needs the {package} package: "
        "pip install 'nghttp2py[cli]'\n"
    )


def test_the_module_can_be_run():
    result = subprocess.run(
        [sys.executable, "-m", "nghttp2py", "hpack", "decode"],
        input="82\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == '[[":method", "GET"]]\n'
