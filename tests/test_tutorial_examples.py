"""The tutorial, step by step, by the commands of its page."""

import json
import shutil
import subprocess

import pytest
from loops import DEADLINE
from recipes import EXAMPLES, Page

TUTORIAL = EXAMPLES / "tutorial"


@pytest.fixture
def page(tmp_path):
    return Page("tutorial", tmp_path)


def take_step(page, name):
    """Save a program as the page says."""
    new = page.directory / "new"
    shutil.copy(TUTORIAL / name, new)
    new.rename(page.directory / "main.py")


RELOADING = "nghttp2py run main:app --reload"


def test_the_first_step_is_answered_over_two_versions(page):
    take_step(page, "step1.py")
    with page.serving(RELOADING, f"--port {page.port}"):
        page.run("curl http://127.0.0.1:8000/")
        page.run("curl --http2-prior-knowledge")
        page.run("nghttp2py get -n 100")


def add_the_first_entry(page):
    page.run('curl --json \'{"text": "Hello"}\'')


def test_entries_are_stored_and_get_pictures(page):
    take_step(page, "step2.py")
    with page.serving(RELOADING, f"--port {page.port}"):
        add_the_first_entry(page)
        page.run_each("curl http://127.0.0.1:8000/entries")
    take_step(page, "step3.py")
    with page.serving(RELOADING, f"--port {page.port}"):
        page.run_each("head")
        page.run_each("curl -T")
        page.run("curl -r")
        picture = (page.directory / "picture.jpeg").read_bytes()
        assert (page.directory / "part").read_bytes() == picture[:1000]
        assert not list((page.directory / "guestbook").glob("tmp*"))


def test_events_show_entries_until_the_server_stops(page):
    take_step(page, "main.py")
    with (
        page.serving(RELOADING, f"--port {page.port}") as server,
        page.reading("curl -N") as events,
    ):
        add_the_first_entry(page)
        assert events.stdout.readline() == "id: 1\n"
        assert events.stdout.readline() == 'data: {"id": 1, "text": "Hello"}\n'
        page.run('curl --json \'{"text": "News"}\'')
        assert events.stdout.readline() == "\n"
        assert events.stdout.readline() == "id: 2\n"
        server.stop()
        assert events.stdout.read() == 'data: {"id": 2, "text": "News"}\n\n'
        assert events.wait(DEADLINE) == 0


def test_the_tests_of_the_tutorial_pass(page):
    take_step(page, "main.py")
    shutil.copy(TUTORIAL / "test_main.py", page.directory)
    assert "5 passed" in page.run("python -m pytest")


def test_two_workers_share_the_guest_book_over_http3(page):
    take_step(page, "main.py")
    page.run("python -c")
    with page.serving("nghttp2py run main:app --workers 2") as server:
        server.wait_for("2 workers are ready")
        page.run("nghttp2py get --cacert")
        with page.reading("nghttp2py get -N") as events:
            certificate = (page.directory / "made").read_text().split()[0]
            url = f"https://127.0.0.1:{page.port}/entries"
            sent = subprocess.run(
                ["curl", "-sS", "--cacert", certificate, "--json", '{"text":"a"}', url],
                capture_output=True,
                text=True,
            )
            entry = json.loads(sent.stdout)
            assert events.stdout.readline() == f"id: {entry['id']}\n"
            page.run("kill")
            # The stream of a worker that is replaced ends, as at the server's end.
            assert events.stdout.read().endswith("\n\n")
            assert events.wait(DEADLINE) == 0
        assert json.loads(page.run("nghttp2py get --http3-only")) == [entry]
