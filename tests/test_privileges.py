"""The file of the process's number, and names of users and groups."""

import grp
import os
import pwd
import subprocess
import sys

import pytest

from nghttp2py.errors import ConfigurationError
from nghttp2py.workers.pid_file import PidFile
from nghttp2py.workers.privileges import Identity, drop, find_identity

# ---- The file ----


@pytest.fixture
def path(tmp_path):
    return tmp_path / "server.pid"


def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_file_has_the_number_while_the_process_serves(path):
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        assert path.stat().st_mode & 0o777 == 0o644
        assert list(path.parent.iterdir()) == [path]
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("directory", ["", "."])
def test_a_relative_path_is_in_the_current_directory(path, directory, monkeypatch):
    monkeypatch.chdir(path.parent)
    with PidFile(os.path.join(directory, path.name)):
        assert path.exists()


@pytest.mark.parametrize("text", ["", "\n", "0\n", "{own}", "99999999999999"])
def test_a_file_that_names_no_other_process_is_replaced(path, text):
    path.write_text(text.format(own=os.getpid()))
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_file_of_a_process_that_has_ended_is_replaced(path):
    path.write_text(f"{dead()}\n")
    with PidFile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("kind", ["its parent", "the first of the system"])
def test_a_file_of_a_process_that_runs_is_refused_and_stays(path, kind):
    pid = os.getppid() if kind == "its parent" else 1
    path.write_text(f"{pid}\n")
    with pytest.raises(ConfigurationError, match=f"names process {pid}, which runs"):
        PidFile(str(path)).create()
    assert path.read_text() == f"{pid}\n"


def test_a_file_of_something_else_is_not_overwritten(path):
    path.write_text("my dear diary")
    with pytest.raises(ConfigurationError, match="is not overwritten"):
        PidFile(str(path)).create()
    assert path.read_text() == "my dear diary"


def test_what_is_no_file_is_not_replaced(path):
    os.mkfifo(path)
    for name in (str(path), "/dev/null", str(path.parent)):
        with pytest.raises(ConfigurationError, match=r"is no regular file|directory"):
            PidFile(name).create()
    assert os.path.exists("/dev/null")


def test_a_file_that_cannot_be_written_is_one_sentence(path):
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        PidFile(str(path.parent / "nowhere" / "pid")).create()


def test_the_file_of_a_successor_stays(path):
    file = PidFile(str(path))
    file.create()
    path.unlink()
    path.write_text("5\n")
    file.remove()
    file.remove()
    assert path.read_text() == "5\n"


def test_a_file_that_cannot_be_removed_any_more_is_made_empty(path, monkeypatch):
    def unlink(path):
        raise PermissionError(13, "Permission denied")

    with PidFile(str(path)):
        monkeypatch.setattr(os, "unlink", unlink)
    assert path.read_text() == ""


# ---- Users and groups ----

ME = pwd.getpwuid(os.getuid())
MY_GROUP = grp.getgrgid(ME.pw_gid).gr_name


@pytest.mark.parametrize("user", [ME.pw_name, str(ME.pw_uid)])
def test_a_user_brings_its_group(user):
    assert find_identity(user, None) == (ME.pw_uid, ME.pw_gid, ME.pw_name)
    assert find_identity(user, "12345") == (ME.pw_uid, 12345, ME.pw_name)


def test_a_group_is_a_name_or_a_number():
    assert find_identity(None, MY_GROUP) == Identity(gid=ME.pw_gid)
    assert find_identity("54321", "12345") == Identity(54321, 12345)
    assert find_identity(None, None) == Identity()


@pytest.mark.parametrize(
    ("user", "group", "why"),
    [
        ("nobody here", None, "there is no user 'nobody here'"),
        (None, "nothing here", "there is no group 'nothing here'"),
        ("54321", None, "54321 has no group of its own"),
    ],
)
def test_an_unknown_name_is_refused(user, group, why):
    with pytest.raises(ConfigurationError, match=why):
        find_identity(user, group)


def test_the_user_of_the_process_needs_no_privilege():
    drop(ME.pw_name, MY_GROUP)
    assert os.getuid() == ME.pw_uid
