"""Child processes: every status, no zombies, no strangers."""

import errno
import fcntl
import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, CalledProcessError

import pytest

from corolib import (
    Cancelled,
    ClosedError,
    LimitExceeded,
    Sleep,
    TaskCancelled,
    current_scheduler,
    first,
    move_on_after,
    open_process,
    run,
    run_process,
    spawn,
    timeout,
)
from corolib.system import subprocesses as module
from corolib.system.subprocesses import Children
from tests.helpers.children import children, fds, outside, script
from tests.helpers.driving import FULL, strike, until
from tests.helpers.garbage import garbage_of
from tests.helpers.inside import (
    local,
    popen_of,
    stop_watching,
    take_pidfds_away,
    take_pidfds_from_subprocess,
)
from tests.helpers.moments import Moment

pytestmark = pytest.mark.usefixtures("nothing_left")

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture(params=["pidfd", "thread", "wait"])
def watching(request, monkeypatch):
    """The three ways in which the end of a child is learnt."""
    if request.param != "pidfd":
        take_pidfds_away(monkeypatch)
    if request.param == "wait":
        monkeypatch.delattr(os, "waitid")
    return request.param


# open_process -------------------------------------------------------------------------------------


def test_a_process_is_talked_to_over_streams_and_waited_for(watching):
    def main():
        process = yield from open_process(["cat"], stdin=PIPE, stdout=PIPE)
        assert process.stderr is None
        with process:
            assert f"<Process cat (pid {process.pid}) running>" == repr(process)
            yield from process.stdin.sendall(b"one\ntwo\n")
            lines = [(yield from process.stdout.readline())]
            process.stdin.close()
            lines.append((yield from process.stdout.readline()))
            assert (yield from process.stdout.readline()) == b""
            code = yield from process.wait()
        assert process.returncode == 0
        assert repr(process).endswith("ended with 0>")
        return code, lines

    assert run(main) == (0, [b"one\n", b"two\n"])


def test_all_who_wait_get_the_status_and_so_do_those_who_ask_later(watching):
    def main():
        process = yield from open_process(["sh", "-c", "exit 7"])
        tasks = [spawn(process.wait) for _ in range(3)]
        codes = []
        for task in tasks:
            codes.append((yield from task))
        codes.append((yield from process.wait()))
        codes.append((yield process.exiting()))
        return codes

    assert run(main) == [7] * 5


def test_who_stops_waiting_leaves_the_process_alone():
    def main():
        with (yield from open_process(["cat"], stdin=PIPE)) as process:
            with move_on_after(0.01) as scope:
                yield from process.wait()
            assert scope.expired
            assert process.returncode is None
            process.stdin.close()
            return (yield from process.wait())

    assert run(main) == 0


def test_two_waits_for_one_process_may_be_one_choice(watching):
    def main():
        process = yield from open_process(["sh", "-c", "exit 7"])
        chosen = yield from first(process.exiting(), process.exiting())
        return chosen, (yield from process.wait())

    assert run(main) == ((0, 7), 7)


def test_signals_reach_the_process_and_its_status_names_them(watching, default_sigint):
    def main():
        codes = []
        for send in ("terminate", "kill", "interrupt"):
            process = yield from open_process(["sleep", "60"])
            if send == "interrupt":
                process.send_signal(signal.SIGINT)
            else:
                getattr(process, send)()
            codes.append((yield from process.wait()))
            process.kill()  # nothing happens any more
        return codes

    assert run(main) == [-signal.SIGTERM, -signal.SIGKILL, -signal.SIGINT]


def test_leaving_the_block_kills_and_closes_and_the_child_is_reaped_soon(watching):
    def main():
        with (yield from open_process(["sleep", "60"], stdin=PIPE, stdout=PIPE)) as process:
            reader = spawn(process.stdout.readline)
            yield
            yield
        with pytest.raises(ClosedError):
            yield from reader
        with pytest.raises(ClosedError):
            yield from process.stdin.sendall(b"x")
        while process.returncode is None:
            yield Sleep(0.001)
        assert children() == {}
        return process.returncode

    assert run(main) == -signal.SIGKILL


def test_nobody_has_to_wait_for_a_process_to_have_it_reaped(watching):
    def main():
        process = yield from open_process(["true"])
        while process.returncode is None:
            yield Sleep(0.001)
        return children()

    assert run(main) == {}


def test_a_waiting_task_is_no_deadlock_and_reports_show_what_it_waits_for():
    def main():
        process = yield from open_process(["cat"], stdin=PIPE)
        task = spawn(process.wait)
        yield
        yield
        assert repr(task.wait) == f"the end of cat (pid {process.pid})"
        process.stdin.close()
        return (yield from task)

    assert run(main) == 0


def test_the_child_gets_the_folder_the_environment_and_the_options_asked_for(tmp_path):
    def main():
        program = "pwd; echo $WORD; echo oops >&2; ps -o sid= -p $$"
        process = yield from open_process(
            ["sh", "-c", program],
            stdout=PIPE,
            stderr=STDOUT,
            cwd=tmp_path,
            env={"WORD": "hello", "PATH": os.environ["PATH"]},
            start_new_session=True,
        )
        lines = []
        with process:
            while line := (yield from process.stdout.readline()):
                lines.append(line.decode().strip())
        return lines == [str(tmp_path), "hello", "oops", str(process.pid)]

    assert run(main)


def test_cancelled_before_the_start_it_starts_nothing():
    def main():
        task = spawn(open_process(["sleep", "60"]))
        yield
        task.cancel()
        with pytest.raises(TaskCancelled):
            yield from task
        return children()

    assert run(main) == {}


@pytest.mark.found("T8")
@pytest.mark.parametrize("args", ["mysql -pSECRET", b"mysql -pSECRET"])
def test_a_command_line_in_one_string_is_refused_with_the_right_spelling(args):
    """The line itself is not shown: it may hold a password."""
    with pytest.raises(TypeError) as caught:
        run(open_process, args)
    assert "as a list, as in ['ls', '-l']" in str(caught.value)
    assert "['sh', '-c', line]" in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("args", [Path("/bin/ls"), None, 42])
def test_what_is_no_list_is_refused_with_the_right_spelling(args):
    with pytest.raises(TypeError, match=r"open_process\(.*\): write a list, as in \['ls', '-l'\]"):
        run(open_process, args)


@pytest.mark.parametrize("start", [open_process, run_process])
def test_a_list_without_a_program_is_refused(start):
    name = start.__name__
    with pytest.raises(ValueError, match=rf"{name}\(\[\]\): the list begins with the program"):
        run(start, [])


@pytest.mark.found("E2")
@pytest.mark.parametrize("start", [open_process, run_process])
def test_each_item_of_the_list_is_a_string_of_its_own(start):
    name = start.__name__
    with pytest.raises(TypeError, match=rf"{name}\(\) got 5 in the list: write str\(5\)"):
        run(start, ["sleep", 5])
    with pytest.raises(FileNotFoundError) as caught:
        run(start, ["ls -l"])
    assert caught.value.__notes__[0].startswith("as in ['ls', '-l']: the program and each of its")
    with pytest.raises(FileNotFoundError) as caught:
        run(start, ["/no/such/program"])
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.found("E2")
def test_what_was_not_piped_is_named():
    def main():
        with (yield from open_process(["true"])) as process:
            process.stdout.read()

    def other():
        yield
        None.stdout.read()

    with pytest.raises(AttributeError) as caught:
        run(main)
    right = "process = yield from open_process([...], stdout=subprocess.PIPE)"
    assert caught.value.__notes__ == [f"process.stdout is None. Write `{right}`"]
    with pytest.raises(AttributeError) as caught:
        run(other)
    assert not hasattr(caught.value, "__notes__")
    with pytest.raises(TypeError, match="unless it has capture=False"):
        run(run_process(["true"], capture_output=True))


@pytest.mark.found("E2")
def test_what_a_program_said_of_its_failure_is_shown():
    with pytest.raises(CalledProcessError) as caught:
        run(run_process(["sh", "-c", "echo gone >&2; exit 3"], check=True))
    assert caught.value.__notes__ == [r"It wrote to stderr: 'gone\n'"]


@pytest.mark.parametrize("option", ["text", "encoding", "bufsize"])
def test_streams_of_text_are_refused(option):
    with pytest.raises(TypeError, match=rf"open_process\({option}=\): streams carry bytes"):
        run(open_process(["true"], **{option: 1}))
    with pytest.raises(TypeError, match=rf"run_process\({option}=\): .*`text = data.decode\(\)`"):
        run(run_process(["true"], **{option: 1}))


def test_all_children_are_started_by_one_object():
    started = []

    class Logged(Children):
        def spawn(self, args, options):
            started.append(args)
            return super().spawn(args, options)

    def main():
        children = local(current_scheduler(), Children)
        children.spawn = Logged(children.scheduler).spawn
        yield from (yield from open_process(["true"])).wait()
        yield from run_process(["echo", "x"])

    run(main)
    assert started == [["true"], ["echo", "x"]]


def test_a_file_number_too_large_for_the_selector_is_no_matter(monkeypatch):
    """`select()` refuses numbers from 1024 on, and says so only when it is called."""
    import selectors

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    real = os.pidfd_open

    def high(pid):
        fd = real(pid)
        try:
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 1030)
        finally:
            os.close(fd)

    monkeypatch.setattr(os, "pidfd_open", high)

    def main():
        with (yield from open_process(["sh", "-c", "read x; exit 3"], stdin=PIPE)) as process:
            yield Sleep(0.001)
            process.stdin.close()
            return (yield from process.wait())

    try:
        assert run(main, selector=selectors.SelectSelector) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("watching", ["pidfd", "thread"], indirect=True)
def test_a_status_that_something_else_has_taken_is_no_success(watching):
    def main():
        with (yield from open_process(["cat"], stdin=PIPE)) as process:
            process.stdin.close()
            os.waitpid(process.pid, 0)
            process.terminate()  # nobody is there; without a pidfd, it is hoped
            with pytest.raises(ChildProcessError, match="has taken its exit status"):
                yield from process.wait()
            return process.returncode

    assert run(main) is None


def test_a_child_that_cannot_be_watched_is_not_started(monkeypatch):
    import threading

    def fail(self):
        raise RuntimeError("can't start new thread")

    take_pidfds_away(monkeypatch)
    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(RuntimeError, match="new thread"):
        run(open_process(["sleep", "60"], stdin=PIPE, stdout=PIPE))


def test_a_child_that_can_be_watched_no_more_is_killed_and_who_waits_is_told(monkeypatch):
    """`select()` has refused the pidfd, and then there is no thread either."""
    import threading

    watch = module.Process.watch

    def watch_and_lose(process):
        watch(process)
        stop_watching(process)
        current_scheduler().call_soon_threadsafe(process.exited, None, OSError("refused"))

    def fail(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module.Process, "watch", watch_and_lose)
    monkeypatch.setattr(threading.Thread, "start", fail)
    message = r"cat \(pid \d+\) could not be watched, and was killed: .*can't start new thread"

    def main():
        with (yield from open_process(["cat"], stdin=PIPE)) as process:
            for _ in range(2):  # who waits for it, and who comes later
                with pytest.raises(RuntimeError, match=message):
                    yield from process.wait()
        assert children() == {}
        return process.returncode

    reported = []
    code = run(main, on_task_error=lambda *failure: reported.append(failure))
    assert (code, reported) == (-signal.SIGKILL, [])


def test_what_the_child_writes_to_devnull_is_gone():
    def main():
        process = yield from open_process(["echo", "x"], stdout=DEVNULL)
        with timeout(10):
            return (yield from process.wait()), process.stdout

    assert run(main) == (0, None)


# The hazards --------------------------------------------------------------------------------------


@pytest.mark.hazard("H68")
def test_every_status_arrives_once_and_no_zombie_stays_and_no_stranger_is_killed(
    watching, monkeypatch
):
    count = 500 if FULL else 50
    chance = random.Random(68)
    statuses = {}
    at_large = set()  # the numbers that are ours, from the start to the reaping
    aimed = []
    reap = module.Process.reap

    def reaped(process):
        done = reap(process)
        if done:
            at_large.discard(process.pid)
        return done

    def kill(pid, number, real=os.kill):
        aimed.append(pid)
        assert pid in at_large
        real(pid, number)

    monkeypatch.setattr(module.Process, "reap", reaped)
    monkeypatch.setattr(os, "kill", kill)

    def worker(jobs):
        for job in jobs:
            process = yield from open_process(["true"])
            at_large.add(process.pid)
            if chance.random() < 0.5:
                for _ in range(chance.randrange(4)):
                    yield
                process.kill()
            code = yield from process.wait()
            process.kill()
            assert job not in statuses
            statuses[job] = code

    def main():
        jobs = iter(range(count))
        workers = [spawn(worker, jobs) for _ in range(50)]
        for task in workers:
            yield from task
        assert children() == {}

    run(main)
    assert sorted(statuses) == list(range(count))
    assert set(statuses.values()) <= {0, -signal.SIGKILL}
    assert watching != "thread" or aimed  # by file, or mostly too late


@pytest.mark.hazard("H68")
def test_a_signal_goes_to_the_file_of_the_process_and_never_to_a_number_that_was_given_back(
    monkeypatch,
):
    def kill(pid, number):
        raise AssertionError("a number was signalled")

    monkeypatch.setattr(os, "kill", kill)

    def main():
        with (yield from open_process(["sleep", "60"])) as process:
            process.terminate()
            code = yield from process.wait()
            process.pid = os.getppid()  # the number has passed to a stranger
            process.kill()
        return code

    assert run(main) == -signal.SIGTERM


@pytest.mark.hazard("H68")
def test_a_number_that_a_thread_has_given_back_is_not_signalled_although_nobody_knows_yet(
    monkeypatch,
):
    take_pidfds_away(monkeypatch)
    monkeypatch.delattr(os, "waitid")  # as on macOS, where the thread is who reaps

    def kill(pid, number):
        raise AssertionError("a number was signalled that is not ours any more")

    def main():
        process = yield from open_process(["true"])
        while popen_of(process).returncode is None:
            time.sleep(0.001)  # and the loop hears of nothing meanwhile
        monkeypatch.setattr(os, "kill", kill)
        process.kill()
        assert "running" in repr(process)
        return (yield from process.wait())

    assert run(main) == 0


@pytest.mark.hazard("H71")
@pytest.mark.parametrize("how", ["pidfd", "number"])
def test_a_fork_that_leaves_the_block_leaves_the_process_to_its_parent(how):
    program = f"""
        import os, sys
        from subprocess import PIPE
        from corolib import open_process, run
        if {how == "number"}:
            del os.pidfd_open
        def main():
            with (yield from open_process(["cat"], stdin=PIPE, stdout=PIPE)) as process:
                child = os.fork()
                if child == 0:
                    sys.exit(3)
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
                yield from process.stdin.sendall(b"still there\\n")
                process.stdin.close()
                print((yield from process.stdout.readline()), (yield from process.wait()))
        run(main)
    """
    done = outside(script(program))
    assert done.stdout == "3\nb'still there\\n' 0\n", done.stderr


@pytest.mark.hazard("H69")
@pytest.mark.parametrize("wrong", ["program", "folder"])
def test_a_program_that_cannot_be_started_leaves_nothing_behind(wrong, tmp_path):
    before = fds(), children()
    missing = str(tmp_path / "missing")

    def main():
        for _ in range(1000 if FULL else 100):
            with pytest.raises(FileNotFoundError):
                if wrong == "program":
                    yield from open_process([missing], stdin=PIPE, stdout=PIPE, stderr=PIPE)
                else:
                    yield from run_process(["true"], cwd=missing)
        assert children() == before[1]
        return local(current_scheduler(), Children).running

    assert run(main) == {}
    assert (fds(), children()) == before


@pytest.mark.hazard("H69")
def test_when_there_are_no_files_left_nothing_is_left_behind_either():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    outcomes = []

    def main():
        top = max(map(int, fds())) + 20
        filler = [os.open(os.devnull, os.O_RDONLY)]
        while filler[-1] < top:
            filler.append(os.open(os.devnull, os.O_RDONLY))
        try:
            for room in range(12):
                before = len(fds())
                resource.setrlimit(resource.RLIMIT_NOFILE, (top + 1 + room, hard))
                try:
                    process = yield from open_process(
                        ["true"], stdin=PIPE, stdout=PIPE, stderr=PIPE
                    )
                    with process:
                        yield from process.wait()
                    outcomes.append("started")
                except OSError as exc:
                    outcomes.append(exc.errno)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                assert len(fds()) == before
        finally:
            for fd in filler:
                os.close(fd)

    try:
        run(main)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(outcomes) == {errno.EMFILE, "started"}
    assert outcomes[-1] == "started"


INHERITED = """
    import fcntl, os
    print([fd for fd in range(3) if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK])
    print([fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{fd}")])
"""


@pytest.mark.hazard("H70")
def test_what_a_child_inherits_is_clean(pair):
    def main():
        with os.fdopen(os.dup(0)) as extra:
            os.set_inheritable(extra.fileno(), True)
            process = yield from open_process(
                script(INHERITED), stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
        with process:
            nonblocking = yield from process.stdout.readline()
            files = yield from process.stdout.readline()
            yield from process.wait()
        # Programs in C, for Python itself changes signals when it starts, and shells do too.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD})
        try:
            result = yield from run_process(["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"])
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return nonblocking, files, result.stdout.decode().split()

    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN, "Python's own, not the child's"
    nonblocking, files, signals = run(main)
    assert (nonblocking, files) == (b"[]\n", b"[]\n")
    assert int(signals[signals.index("SigBlk:") + 1], 16) == 0
    assert not int(signals[signals.index("SigIgn:") + 1], 16) & 1 << (signal.SIGPIPE - 1)


# run_process --------------------------------------------------------------------------------------


def test_a_program_is_run_to_its_end():
    def main():
        return (yield from run_process(["sh", "-c", "cat; echo oops >&2; exit 3"], input=b"in"))

    result = run(main)
    assert (result.returncode, result.stdout, result.stderr) == (3, b"in", b"oops\n")


def test_input_and_both_outputs_flow_at_once_however_much_there_is():
    data = os.urandom(2_000_000)

    def main():
        return (yield from run_process(["tee", "/dev/stderr"], input=data))

    result = run(main)
    assert result.stdout == result.stderr == data


def test_a_program_without_input_reads_the_end_and_one_that_reads_nothing_is_no_failure():
    def main():
        nothing = yield from run_process(["cat"])
        unread = yield from run_process(["true"], input=bytes(1_000_000))
        return nothing.stdout, unread.returncode

    assert run(main) == (b"", 0)


@pytest.mark.parametrize("stdin", [DEVNULL, PIPE, None])
def test_input_and_a_file_to_read_it_from_are_refused_together(stdin):
    with pytest.raises(ValueError, match="the input itself, input=, or its file, stdin="):
        run(run_process(["cat"], input=b"x", stdin=stdin))
    assert run(run_process(["cat"], stdin=DEVNULL)).stdout == b""


def test_text_as_input_is_refused_before_anything_is_started():
    with pytest.raises(TypeError, match=r"write input=text\.encode\(\)"):
        run(run_process(["missing program"], input="text"))


def test_an_output_that_is_not_captured_goes_where_ours_goes(capfd):
    def main():
        return (yield from run_process(["sh", "-c", "echo out; echo err >&2"], capture=False))

    result = run(main)
    assert (result.stdout, result.stderr) == (None, None)
    assert capfd.readouterr() == ("out\n", "err\n")


def test_one_output_may_be_put_elsewhere():
    def main():
        return (yield from run_process(["sh", "-c", "echo o; echo e >&2"], stderr=STDOUT))

    result = run(main)
    assert (result.stdout, result.stderr) == (b"o\ne\n", None)


def test_a_failure_is_raised_if_asked_for():
    def main():
        assert (yield from run_process(["true"], check=True)).returncode == 0
        yield from run_process(["sh", "-c", "echo why; exit 3"], check=True)

    with pytest.raises(CalledProcessError) as caught:
        run(main)
    assert (caught.value.returncode, caught.value.stdout) == (3, b"why\n")


@pytest.mark.parametrize("output", ["", " >&2"])
def test_a_program_that_writes_too_much_is_killed(output):
    def main():
        with pytest.raises(LimitExceeded, match="wrote more than 100000 bytes") as caught:
            yield from run_process(["sh", "-c", f"trap '' TERM; yes{output}"], limit=100_000)
        assert caught.value.limit == 100_000 < caught.value.seen <= 100_000 + 65536
        assert children() == {}
        return (yield from run_process(["echo", "x"], limit=2)).stdout

    assert run(main, grace=math.inf) == b"x\n"


def test_a_program_that_takes_too_long_is_terminated_and_gone():
    def main():
        with pytest.raises(TimeoutError, match=r"sleep \(pid \d+\) took longer than 0.05 s"):
            yield from run_process(["sleep", "60"], input=b"x", timeout=0.05)
        return children()

    assert run(main, grace=math.inf) == {}


def test_a_program_that_does_not_want_to_end_is_killed_after_the_grace():
    def main():
        with pytest.raises(TimeoutError):
            yield from run_process(["sh", "-c", STUBBORN], timeout=0.2)
        return children()

    assert run(main, grace=0.1) == {}


def test_a_program_that_has_changed_its_user_goes_on_and_nothing_else_does(monkeypatch):
    def refuse(process, number):
        raise PermissionError("not yours")

    def main():
        children = local(current_scheduler(), Children)
        with monkeypatch.context() as patch:
            patch.setattr(module.Process, "send_signal", refuse)
            with pytest.raises(PermissionError, match="not yours"):
                yield from run_process(["sleep", "60"], timeout=0.01, input=b"x")
            (process,) = children.running
            assert current_scheduler().stats()["tasks"] == 1
        process.kill()
        yield from process.wait()

    reported = []
    run(main, on_task_error=lambda *failure: reported.append(failure))
    assert reported == []


def over_the_limit():
    with pytest.raises(LimitExceeded):
        yield from run_process(["yes"], limit=100)


def out_of_time():
    with pytest.raises(TimeoutError):
        yield from run_process(["cat"], stdin=PIPE, timeout=0)


@pytest.mark.parametrize("scenario", [over_the_limit, out_of_time])
def test_a_run_that_failed_leaves_no_cycle(scenario):
    assert not {"Process", "Task", "generator"} & set(garbage_of(scenario))


def test_last_words_are_still_read_while_a_program_ends():
    """It could not end if nobody read them."""
    words = "trap 'head -c 1000000 /dev/zero; exit' TERM; echo; while :; do sleep 0.01; done"

    def main():
        with pytest.raises(TimeoutError):
            yield from run_process(["sh", "-c", words], timeout=0.2)

    run(main, grace=math.inf)


def test_those_that_a_program_left_in_the_background_do_not_hold_up_its_end():
    def main():
        with pytest.raises(TimeoutError):
            yield from run_process(["sh", "-c", "sleep 2 & exit"], timeout=0.2)
        return current_scheduler().stats()["tasks"]

    assert run(main) == 1


@pytest.mark.parametrize("program", ["sleep 60", STUBBORN])
@pytest.mark.parametrize("how", ["task", "block"])
def test_a_cancelled_run_has_ended_its_program_before_it_is_gone(program, how):
    gone = []

    def runner():
        try:
            with move_on_after(0.1 if how == "block" else None):
                yield from run_process(["sh", "-c", f"exec 2>&1; {program}"], input=b"x")
        except Cancelled:
            gone.append(children())
            raise
        gone.append(children())

    def main():
        task = spawn(runner)
        yield Sleep(0.1)
        yield from task.stop()

    run(main, grace=0.5)  # which is also the time that one has to be gone after it was killed
    assert gone == [{}]


@pytest.mark.parametrize("step", range(10))
def test_a_run_cancelled_at_any_step_leaves_nothing(step):
    errors = []

    def main():
        task = spawn(run_process(["cat"], input=bytes(200_000)))
        for _ in range(step):
            yield
        yield from task.stop()
        stats = current_scheduler().stats()
        assert stats["tasks"] == 1
        while local(current_scheduler(), Children).running:
            yield Sleep(0.001)
        assert current_scheduler().stats()["files"] == 0

    run(main, on_task_error=lambda *failure: errors.append(failure))
    assert errors == []


def test_a_run_that_is_thrown_away_kills_its_program():
    def main():
        running = run_process(["sleep", "60"])

        def driver():
            yield from running

        task = spawn(driver)
        while not local(current_scheduler(), Children).running:
            yield
        (process,) = local(current_scheduler(), Children).running
        yield
        yield
        task.cancel()
        running.close()
        return (yield from process.wait())

    assert run(main) == -signal.SIGKILL


def test_a_run_under_way_when_its_task_is_abandoned_kills_its_program(
    capfd, default_sigint, tmp_path
):
    """A second Ctrl-C abandons all tasks: their bodies are closed, and cannot wait any more."""
    program = f"""
        import os, signal
        from corolib import Sleep, run, run_process, spawn
        def main():
            begun = "{tmp_path}/begun"
            line = f"trap '' TERM; echo $$; touch {{begun}}; exec sleep 60"
            spawn(run_process(["sh", "-c", line], capture=False))
            while not os.path.exists(begun):
                yield Sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
            yield
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            yield Sleep(5)
        run(main, grace=0.1)
    """
    done = outside(script(program))
    pid = int(done.stdout)
    assert "KeyboardInterrupt" in done.stderr
    assert not os.path.exists(f"/proc/{pid}")


# The end of the run -------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["sleep 60", STUBBORN])
def test_children_that_outlive_the_run_are_ended_and_named(program, capfd, watching):
    found = []

    def main():
        process = yield from open_process(["sh", "-c", f"exec >/dev/null; {program}"])
        found.append(process)
        yield Sleep(0.05)

    run(main, grace=0.1)
    (process,) = found
    assert process.returncode in (-signal.SIGTERM, -signal.SIGKILL)
    assert capfd.readouterr().err == (
        f"corolib: process sh (pid {process.pid}) outlives the run; it is ended now\n"
    )


def test_with_an_endless_grace_the_end_still_comes(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)

    def main():
        process = yield from open_process(["sh", "-c", STUBBORN], stdout=PIPE)
        yield from process.stdout.readline()
        process.stdout.close()
        return process

    assert run(main, grace=math.inf).returncode == -signal.SIGKILL


def test_who_interrupts_the_end_leaves_no_child_running(monkeypatch):
    def interrupted(process, deadline):
        raise KeyboardInterrupt

    def main():
        with (yield from open_process(["sh", "-c", STUBBORN], stdout=PIPE)) as process:
            yield from process.stdout.readline()
            with monkeypatch.context() as patch:
                patch.setattr(module.Process, "wait_until", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    local(current_scheduler(), Children).end()
            return (yield from process.wait())

    assert run(main) == -signal.SIGKILL


@pytest.mark.hazard("H63")
def test_a_second_ctrl_c_while_a_program_is_started_leaves_none_behind(default_sigint, capfd):
    """It is there already, and nobody knows of it yet."""
    started = []

    def main():
        local(current_scheduler(), Children).spawn = interrupted
        yield from open_process(["sleep", "60"])

    def interrupted(args, options):
        popen = subprocess.Popen(args)
        strike()
        strike()
        started.append(popen.pid)
        return popen

    with pytest.raises(KeyboardInterrupt):
        run(main)
    (pid,) = started
    assert f"process sleep (pid {pid}) outlives the run" in capfd.readouterr().err


@pytest.mark.hazard("H63")
@pytest.mark.parametrize("strikes", [1, 2])
def test_one_more_ctrl_c_at_any_moment_after_the_start_of_a_program_leaves_none_behind(
    strikes, default_sigint, capfd, monkeypatch
):
    """Two that come while it is started are raised later: the next one is the third."""
    monkeypatch.setattr(module, "STUCK", math.inf)  # a wait in vain has no end

    def interrupted(args, options):
        popens.append(subprocess.Popen(args))
        for _ in range(strikes):
            strike()
        sys.settrace(moments[-1].trace)
        return popens[-1]

    def main():
        local(current_scheduler(), Children).spawn = interrupted
        with (yield from open_process(["sleep", "60"])) as process:
            yield from process.wait()

    before, step = sys.gettrace(), 1 if FULL else 17
    moments, popens = [Moment(0, strike)], []
    while len(popens) == 0 or moments[-2].come:
        try:
            with pytest.raises(KeyboardInterrupt):
                run(main)
        finally:
            sys.settrace(before)
        with pytest.raises(ChildProcessError):
            os.waitpid(popens[-1].pid, os.WNOHANG)
        moments.append(Moment(step * len(popens), strike))
    assert step * len(popens) > 100


@pytest.mark.hazard("H63")
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there are no pidfds here")
def test_a_second_ctrl_c_when_the_end_of_a_program_is_to_be_watched_leaves_no_file_open(
    default_sigint, monkeypatch
):
    """What is opened is a number, which nobody closes unless he knows it."""
    real, opened = os.pidfd_open, []

    def interrupted(pid, flags=0):
        opened.append(real(pid, flags))
        strike()
        strike()
        return opened[-1]

    def main():
        yield from open_process(["sleep", "60"])

    take_pidfds_from_subprocess(monkeypatch)
    monkeypatch.setattr(os, "pidfd_open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(main)
    (fd,) = opened
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.hazard("H63")
def test_a_second_ctrl_c_while_the_end_names_a_child_leaves_none_running(
    default_sigint, monkeypatch
):
    def interrupted(text):
        strike()
        strike()

    def main():
        for _ in range(2):
            yield from open_process(["sleep", "60"])

    monkeypatch.setattr(module, "to_stderr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(main)


def test_children_that_have_ended_or_were_killed_are_not_named(capfd):
    def main():
        with (yield from open_process(["sleep", "60"])):
            process = yield from open_process(["true"])
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    run(main)
    assert capfd.readouterr().err == ""


def test_a_child_that_cannot_be_signalled_or_ended_is_named(capfd, monkeypatch):
    """One that has changed its user, or is stuck in the kernel."""
    real = module.Process.send_signal
    monkeypatch.setattr(module, "STUCK", 0.01)

    def refuse(process, number):
        raise PermissionError

    def main():
        process = yield from open_process(["cat"], stdin=PIPE)
        process.send_signal(0)
        monkeypatch.setattr(module.Process, "send_signal", refuse)
        for send in (process.terminate, process.kill):
            with pytest.raises(PermissionError):
                send()
        return process

    process = run(main, grace=0.01)
    assert capfd.readouterr().err == (
        f"corolib: process cat (pid {process.pid}) outlives the run; it is ended now\n"
        f"corolib: process cat (pid {process.pid}) cannot be ended\n"
    )
    monkeypatch.setattr(module.Process, "send_signal", real)
    process.stdin.close()
    assert process.wait_until(time.monotonic() + 60)


def test_a_thread_that_learns_of_an_end_after_the_run_is_silent(monkeypatch):
    import threading

    take_pidfds_away(monkeypatch)
    threads = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: threads.append(thread))

        def main():
            with (yield from open_process(["sleep", "60"])):
                pass

        run(main)
    (thread,) = threads
    thread.run()


# Process groups -----------------------------------------------------------------------------------

FAMILY = "trap '' TERM; sleep 60 & echo $!; sleep 60 & echo $!; echo ready; wait; sleep 60"


def alive(pid):
    """Tell whether a process runs: a zombie that nobody has reaped yet does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def members(process):
    """Return the numbers of the processes that FAMILY has started, when it is ready."""
    *pids, _ = (yield from process.stdout.readuntil(b"ready\n")).split()
    return list(map(int, pids))


def gone(*pids):
    """Wait until processes that are no children of ours are gone."""
    while any(map(alive, pids)):
        yield Sleep(0.01)


@pytest.mark.found("T8")
def test_a_group_is_ended_as_a_whole(watching):
    def main():
        process = yield from open_process(["sh", "-c", FAMILY], stdout=PIPE, group=True)
        with process:
            pids = yield from members(process)
            assert all(map(alive, pids))
        yield from process.wait()
        yield from gone(*pids)

    run(main)


@pytest.mark.found("T8")
def test_what_is_left_of_a_group_ends_with_its_head():
    def main():
        line = "sleep 60 & echo $!; exit 7"
        result = yield from run_process(["sh", "-c", line], group=True, timeout=30)
        assert result.returncode == 7
        yield from gone(int(result.stdout))

    run(main)


@pytest.mark.found("T8")
def test_a_group_that_outlives_its_run_ends_with_it(capfd):
    def main():
        process = yield from open_process(["sh", "-c", FAMILY], stdout=PIPE, group=True)
        with process.stdout:
            return (yield from members(process))

    pids = run(main, grace=0.1)
    run(gone, *pids)
    assert "outlives the run" in capfd.readouterr().err


@pytest.mark.found("T8")
@pytest.mark.parametrize("group", [False, True])
def test_what_was_written_before_a_timeout_is_not_lost(group, tmp_path):
    ahead = [0.0]  # seconds of the clock; it is put on when all was written

    def put_the_clock_on():
        yield from until((tmp_path / "written").exists)
        ahead[0] = 1000.0

    def main():
        spawn(put_the_clock_on)
        line = f"echo out; echo err >&2; touch {tmp_path}/written; sleep 60"
        yield from run_process(["sh", "-c", line], timeout=1000, group=group)

    with pytest.raises(TimeoutError) as caught:
        run(main, grace=0.1, clock=lambda: time.monotonic() + ahead[0])
    assert (caught.value.stdout, caught.value.stderr) == (b"out\n", b"err\n")


@pytest.mark.found("T8")
def test_what_was_written_up_to_the_limit_is_not_lost():
    def main():
        yield from run_process(["sh", "-c", "echo err >&2; sleep 0.1; yes"], limit=1001)

    with pytest.raises(LimitExceeded) as caught:
        run(main)
    assert caught.value.stdout == b"y\n" * 500 + b"y"
    assert caught.value.stderr == b"err\n"
