"""The user and the groups of the process: root opens sockets and keys, others serve."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Callable
from typing import NamedTuple

from nghttp2py.errors import ConfigurationError

__all__ = ["Identity", "drop", "find_identity"]


class Identity(NamedTuple):
    """Numbers of a user and a group, None for those of the process.

    ``name`` is the user's name, by which its other groups are found.
    """

    uid: int | None = None
    gid: int | None = None
    name: str | None = None


def find_identity(
    user: str | None, group: str | None, named: Callable[[str], str] = str
) -> Identity:
    """Return the numbers of a user and a group, which are names or numbers as texts.

    Without ``group`` it is the user's.  Raises
    :class:`~nghttp2py.errors.ConfigurationError` if there is no such user or group.
    ``named`` returns how it writes the name of an option.
    """
    uid = gid = name = None
    if user is not None:
        try:
            entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
            uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
        except (KeyError, OverflowError):
            if not user.isdecimal():
                raise ConfigurationError(
                    f"{named('user')}: there is no user {user!r}"
                ) from None
            if group is None:
                raise ConfigurationError(
                    f"{named('user')}: {user} has no group of its own: give "
                    f"{named('group')}, too"
                ) from None
            uid = int(user)
    if group is not None:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise ConfigurationError(
                f"{named('group')}: there is no group {group!r}"
            ) from None
    return Identity(uid, gid, name)


def drop(
    user: str | None = None, group: str | None = None, umask: int | None = None
) -> None:
    """Set the umask, and become a user with its groups, for good.

    To be called when everything is open for which root is needed.  The process of the
    user itself needs no privilege for that, others must be of root.

    Raises :class:`~nghttp2py.errors.ConfigurationError`: the process must end then,
    because it may have a part of its privileges.
    """
    identity = find_identity(user, group)
    if umask is not None:
        os.umask(umask)
    uid, gid, name = identity
    if uid in (None, _only(_user_ids())) and gid in (None, _only(_group_ids())):
        return
    try:
        if gid is not None:
            # Those of the process are root's.
            if name is None:
                os.setgroups([gid])
            else:
                os.initgroups(name, gid)
            os.setgid(gid)
        if uid is not None:
            os.setuid(uid)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"the process cannot become that of user {user}, group {group}: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from None
    if uid:
        _check(os.setuid, "user")
        if gid:
            _check(os.setgid, "group")


def _user_ids() -> set[int]:
    """Return the real, the effective and, if it can be read, the saved user id."""
    if hasattr(os, "getresuid"):
        return set(os.getresuid())
    return {os.getuid(), os.geteuid()}


def _group_ids() -> set[int]:
    if hasattr(os, "getresgid"):
        return set(os.getresgid())
    return {os.getgid(), os.getegid()}


def _only(ids: set[int]) -> int:
    """Return the one id, or -1 if they differ."""
    return ids.pop() if len(ids) == 1 else -1


def _check(become: Callable[[int], None], what: str) -> None:
    """Raise if the process can become root's again."""
    with contextlib.suppress(PermissionError):
        become(0)
        raise ConfigurationError(f"the process can become that of root's {what} again")
