"""Who a worker becomes: users and groups, looked up, tried and taken."""

import errno
import grp
import os
import pwd

import pytest

from corolib import run_workers
from corolib.system.identity import NOBODY, Identity
from tests.helpers.children import outside, script
from tests.helpers.inside import run_until

ROOT = pwd.getpwuid(0)
FREE = next(n for n in range(4711, NOBODY) if n not in {entry.pw_uid for entry in pwd.getpwall()})
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def test_a_user_brings_its_groups():
    expected = Identity(0, ROOT.pw_gid, os.getgrouplist(ROOT.pw_name, ROOT.pw_gid))
    assert Identity.of(ROOT.pw_name, None) == Identity.of(0, None) == expected


def test_a_group_by_name_or_number_is_in_the_place_of_the_users():
    other = next(entry for entry in grp.getgrall() if entry.gr_gid != ROOT.pw_gid)
    for group in (other.gr_name, other.gr_gid):
        uid, gid, groups = Identity.of(0, group)
        assert (uid, gid, other.gr_gid in groups) == (0, other.gr_gid, True)


def test_who_has_no_name_is_in_no_other_groups():
    assert Identity.of(FREE, 0) == Identity(FREE, 0, [])
    assert Identity.of(FREE, NOBODY - 1) == Identity(FREE, NOBODY - 1, [])
    assert Identity.of(None, 0) == Identity(os.geteuid(), 0, [])


@pytest.mark.parametrize(
    ("user", "group", "text"),
    [
        ("no such user", None, "user='no such user': there is no such user here"),
        ("a\0b", None, "there is no such user"),
        (-1, 0, "user=-1: there is no such user"),
        (NOBODY, 0, "there is no such user"),
        (0, "no such group", "group='no such group': there is no such group here"),
        (0, 2**80, "there is no such group"),
        (FREE, None, f"user={FREE} has no name here, and so no group: give group= too"),
    ],
)
def test_who_is_not_known_is_told_before_there_is_a_worker(monkeypatch, user, group, text):
    monkeypatch.setattr(os, "fork", None)
    with pytest.raises(ValueError, match=text):
        run_workers(1, print, user=user, group=group)


@pytest.mark.parametrize(("user", "group"), [(True, None), (1.5, None), (0, b"root")])
def test_what_cannot_be_a_user_or_a_group_is_a_type_error(user, group):
    with pytest.raises(TypeError, match="give the name or the number of a"):
        Identity.of(user, group)


@pytest.mark.found("N16")
@needs_root
def test_the_workers_are_that_user_and_the_parent_stays_who_it_is():
    program = """
        import os
        from corolib import run_workers

        def main():
            yield
            print(os.getresuid(), os.getresgid(), os.getgroups(), flush=True)
            try:
                os.setuid(0)
            except PermissionError:
                print("no way back", flush=True)

        if __name__ == "__main__":
            os.setgroups([7])
            print([report.status for report in run_workers(1, main, user=65533, group=65532)])
            print(os.getresuid(), os.getgroups())
    """
    done = outside(script(program))
    assert (done.stderr, done.stdout.splitlines()) == (
        "",
        [
            "(65533, 65533, 65533) (65532, 65532, 65532) []",
            "no way back",
            "[0]",
            "(0, 0, 0) [7]",
        ],
    )


@pytest.mark.found("N16")
def test_who_may_not_become_another_user_is_told_before_there_is_a_worker():
    """And who is that user already may be told so: nothing changes."""
    program = """
        import grp, logging, os, pwd  # while Python's own files can be read
        from corolib import run_workers

        def main():
            yield
            print(os.getuid(), os.getgid(), flush=True)

        if __name__ == "__main__":
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            run_workers(1, main, user=os.getuid(), group=os.getgid())
            print(os.getuid(), os.getgid(), flush=True)
            try:
                run_workers(1, main, user=0, group=0)
            except PermissionError as exc:
                print(exc)
    """
    # What counts lines could not write them down as another user, and would say so.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = outside(script(program), env={**env, "PYTHONPATH": os.getcwd()})
    first, second, third = done.stdout.splitlines()
    assert first == second
    assert third == (
        f"[Errno {errno.EPERM}] no process can become user 0 with group 0 here: "
        "Operation not permitted"
    )
    assert done.stderr == ""


# In the child, done here --------------------------------------------------------------------------


class Exited(BaseException):
    """Raised in the place of an exit that nothing follows."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 0),
        (OSError(errno.EINVAL, "no"), errno.EINVAL),
        (OSError("without a number"), errno.EPERM),
        (KeyError(), errno.EPERM),
    ],
)
def test_what_comes_of_it_is_tried_in_the_right_order(monkeypatch, error, status):
    def leave(status):
        raise Exited(status)

    def setuid(uid):
        calls.append(("setuid", uid))
        if error is not None:
            raise error

    calls = []
    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(os, "setgroups", lambda groups: calls.append(("setgroups", groups)))
    monkeypatch.setattr(os, "setgid", lambda gid: calls.append(("setgid", gid)))
    monkeypatch.setattr(os, "setuid", setuid)
    with pytest.raises(Exited) as info:
        Identity(FREE, 7, [7, 8]).check()
    assert info.value.args == (status,)
    assert calls == [("setgroups", [7, 8]), ("setgid", 7), ("setuid", FREE)]


@pytest.mark.parametrize("number", [0, errno.EINVAL, errno.EPERM])
def test_what_the_child_has_found_out_is_raised(monkeypatch, number):
    def waitpid(pid, options):
        assert (pid, options) == (77, 0)
        return pid, number << 8

    monkeypatch.setattr(os, "fork", lambda: 77)
    monkeypatch.setattr(os, "waitpid", waitpid)
    identity = Identity(FREE, 7, [])
    if number == 0:
        identity.check()
        return
    with pytest.raises(OSError, match=f"become user {FREE} with group 7 here: ") as info:
        identity.check()
    assert info.value.errno == number


def test_an_ordinary_user_that_is_to_stay_who_it_is_changes_nothing(monkeypatch):
    for name in ("getuid", "geteuid", "getgid", "getegid"):
        monkeypatch.setattr(os, name, lambda: FREE)
    monkeypatch.setattr(os, "setgroups", None)
    Identity(FREE, FREE, []).take()
    with pytest.raises(TypeError):
        Identity(FREE, 0, []).take()


def test_a_worker_becomes_the_user_before_anything_of_the_program_is_called(monkeypatch):
    def setuid(uid):
        raise Exited

    monkeypatch.setattr(os, "setgroups", lambda groups: None)
    monkeypatch.setattr(os, "setgid", lambda gid: None)
    monkeypatch.setattr(os, "setuid", setuid)

    with pytest.raises(Exited):
        run_until(Identity(FREE, 7, []), None, (), {}, None)
