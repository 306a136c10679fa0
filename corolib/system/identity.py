"""Who a process is: the user and the groups that a worker becomes.

    identity = Identity.checked("www-data", None)       may this process be that user?
    identity.take()                                     for good: there is no way back

Only POSIX systems have users in this sense. What calls this is in `workers.py`.
"""

from __future__ import annotations

import errno
import os
from typing import Any, NamedTuple

from corolib.kernel import brief

NOBODY = 2**32 - 1
"""No user and no group has this number: to setuid() it says that nothing is to change."""


class Identity(NamedTuple):
    """A user, a group, and the supplementary groups."""

    uid: int
    gid: int
    groups: list[int]

    @classmethod
    def of(cls, user: str | int | None, group: str | int | None) -> Identity:
        """Return who that is: the user of this process, if none is given. The group, and the
        supplementary ones, are by default the user's.

        ValueError if the system knows no such user or group, TypeError for what cannot be one.
        """
        import grp
        import pwd

        them = None if user is None else _found("user", user, pwd.getpwnam, pwd.getpwuid)
        uid: Any = os.geteuid() if user is None else user if them is None else them.pw_uid
        if group is not None:
            entry = _found("group", group, grp.getgrnam, grp.getgrgid)
            gid: Any = group if entry is None else entry.gr_gid
        elif them is not None:
            gid = them.pw_gid
        else:
            text = "has no name here, and so no group: give group= too"
            raise ValueError(f"user={brief(user)} {text}")
        return cls(uid, gid, [] if them is None else os.getgrouplist(them.pw_name, gid))

    @classmethod
    def checked(cls, user: str | int | None, group: str | int | None) -> Identity | None:
        """Return who that is, None if neither is given; and raise what `take()` would raise."""
        if user is None and group is None:
            return None
        identity = cls.of(user, group)
        identity.check()
        return identity

    def take(self) -> None:
        """Be that user, in those groups. PermissionError if this process may not."""
        if self._is_ours():
            return
        # In this order: after the last step the others would not be allowed.
        os.setgroups(self.groups)
        os.setgid(self.gid)
        os.setuid(self.uid)

    def _is_ours(self) -> bool:
        """Return whether an ordinary user, who may not change groups, is who it is to become."""
        ours = os.getuid(), os.geteuid(), os.getgid(), os.getegid()
        return 0 not in ours[:2] and ours == (self.uid, self.uid, self.gid, self.gid)

    def check(self) -> None:
        """Raise the OSError that `take` would raise: a child process tries."""
        pid = os.fork()
        if pid == 0:
            number = errno.EPERM
            try:
                self.take()
                number = 0
            except OSError as exc:
                number = exc.errno or number
            finally:
                os._exit(number)
        number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if number:
            text = f"no process can become user {self.uid} with group {self.gid} here"
            raise OSError(number, f"{text}: {os.strerror(number)}")


def _found(what: str, key: str | int, by_name: Any, by_number: Any) -> Any:
    """Return the entry of a user or a group; None for a number that has none."""
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise TypeError(f"{what}={brief(key)}: give the name or the number of a {what}")
    try:
        if isinstance(key, str):
            return by_name(key)
        if 0 <= key < NOBODY:
            return by_number(key)
    except (KeyError, ValueError):
        # A ValueError is for a name with a zero byte.
        if not isinstance(key, str):
            return None
    raise ValueError(f"{what}={brief(key)}: there is no such {what} here")
