"""`python3 -m corolib`: serve, run, demo; what it says when it begins, and when it ends."""

import errno
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time

import pytest

import corolib
from corolib import run
from corolib.__main__ import command, ensure_mode, load, told_of_mistakes
from corolib.kernel.waits import DEBUG
from tests.helpers.certificates import PEM
from tests.helpers.programs import PATIENCE, ROOT, at_terminal, quiet, without_slow_steps

APP = """
def echo(stream):
    while data := (yield from stream.recv(65536)):
        yield from stream.sendall(data)

def main():
    from corolib.kernel.waits import DEBUG
    yield
    print("debug" if DEBUG else "production")

def gives():
    yield
    return number

number = 5
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with app.py, in which we are."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "localhost.pem").write_text(PEM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in {"app", "module", "other"} - before:
        sys.modules.pop(name, None)


def begin(*words, **options):
    """Begin `python -m corolib` with these words: in debug mode, for which it would else begin
    anew.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COROLIB_DEBUG": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "corolib", *words],
        env={**environment, **options.pop("variables", {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **options,
    )


def outcome(*words, **options):
    with begin(*words, **options) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, without_slow_steps(err)


def echoed(sock):
    with sock:
        sock.sendall(b"hello")
        return sock.recv(10)


def served(*words, by=signal.SIGINT, connect=None, **options):
    """Serve, talk to the server, end it; return the first line, and exit status and the rest."""
    with begin("serve", "app.py:echo", *words, **options) as process:
        line = process.stdout.readline()
        port = int((re.search(r":(\d+)[, ]", line) or [0, 0])[1])
        address = ("127.0.0.1", port)
        sock = connect(address) if connect else socket.create_connection(address, PATIENCE)
        assert echoed(sock) == b"hello"
        process.send_signal(by)
        out, err = process.communicate(timeout=PATIENCE)
    return line, (process.returncode, out, without_slow_steps(err))


@pytest.mark.found("E6")
def test_alone_it_says_in_ten_lines_what_it_can(capsys):
    for words in ([], ["--help"]):
        with pytest.raises(SystemExit) as caught:
            command(words)
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert len([line for line in text.splitlines() if line]) <= 10
        named = set(re.findall(r"-m corolib (\w+)", text))
        assert named == {"serve", "run", "demo", "trace", "ps", "convert"}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["srve"], 2, "there is no command 'srve'\n\ncorolib: network servers"),
        (["demo", "ecoh", "--port=0"], 2, "there is no demo 'ecoh'\n\n  python3 -m corolib demo"),
        (["demo"], 2, "which demo?\n\n  python3 -m corolib demo echo "),
        (["demo", "--help"], 0, "  python3 -m corolib demo echo "),
        (["--version"], 0, f"corolib {corolib.__version__}\n"),
    ],
)
def test_what_is_mistyped_is_named_before_what_there_is(words, status, said, capsys):
    with pytest.raises(SystemExit) as caught:
        command(words)
    out, err = capsys.readouterr()
    assert caught.value.code == status
    assert (err, out)[status == 0].startswith(said)
    assert (out, err)[status == 0] == ""
    if words[0] == "demo":
        assert set(re.findall(r"corolib demo (\w+)", out + err)) == {"echo", "time"}


@pytest.mark.found("E6")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_a_line_when_it_begins_and_one_when_it_ends(folder, by):
    line, end = served("--port=0", by=by, variables={"COROLIB_DEBUG": ""})
    assert re.fullmatch(r"app.py:echo on 127.0.0.1:\d+, in debug mode; Ctrl-C ends it\n", line)
    said = r"stopped: [01] finished, 0 had to be cancelled\n"
    status, out, err = end
    assert (status, err) == (130 if by == signal.SIGINT else 0, "")
    assert re.fullmatch(said, out)


def test_serve_says_where_the_trace_of_it_is(folder):
    _, (status, _, err) = served("--port=0", "--trace=out.html")
    assert (status, err) == (130, f"{folder.resolve() / 'out.html'}\n")


def test_workers_and_production(folder):
    words = ["--port=0", "--workers=2", "--production", "--trace=out.jsonl"]

    def traces():
        return list(folder.glob("out-*.jsonl"))

    def both_have_begun(address):
        while len(traces()) < 2:
            time.sleep(0.001)
        return socket.create_connection(address, PATIENCE)

    line, (status, out, err) = served(*words, connect=both_have_begun)
    assert line.endswith("in production mode; Ctrl-C ends it\n")
    assert (status, out, err) == (130, "stopped\n", "")
    # Each process has a trace of its own.
    assert len(traces()) == 2
    assert not (folder / "out.jsonl").exists()


def test_there_is_a_look_from_outside():
    status, out, err = outcome("ps", "0")
    assert (status, out) == (2, "")
    assert err.endswith("error: argument PID: invalid process value: '0'\n")


def test_a_unix_socket(folder):
    def connect(_):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect("app.sock")
        return sock

    line, (status, _, err) = served("--unix=app.sock", connect=connect, by=signal.SIGTERM)
    assert line.startswith("app.py:echo on 'app.sock', in debug mode")
    assert (status, err) == (0, "")


def test_tls(folder):
    with begin("serve", "app.py:echo", "--port=0", "--tls=localhost.pem") as process:
        port = int(re.search(r":(\d+),", process.stdout.readline())[1])
        context = ssl.create_default_context(cafile="localhost.pem")
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            assert echoed(context.wrap_socket(sock, server_hostname="localhost")) == b"hello"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and quiet(err)
    status, out, err = outcome("serve", "app.py:echo", "--port=0", "--tls=nothing.pem")
    assert (status, out, err) == (1, "", "--tls nothing.pem: No such file or directory\n")


AS_SYSTEMD = """
    import os, socket, sys
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
        os.execv(sys.executable, [sys.executable, "-m", "corolib", "serve", "app.py:echo"])
"""


def test_sockets_of_systemd_come_before_host_and_port(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COROLIB_DEBUG": ""}
    program = textwrap.dedent(AS_SYSTEMD)
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        port = int(re.search(r":(\d+),", process.stdout.readline())[1])
        assert port != 7007
        assert echoed(socket.create_connection(("127.0.0.1", port), PATIENCE)) == b"hello"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_a_port_that_is_taken_is_one_line(folder):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        status, out, err = outcome("serve", "app.py:echo", f"--port={port}")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert f"127.0.0.1 port {port}: Address already in use" in err


@pytest.mark.parametrize(
    ("words", "variables", "mode"),
    [
        ([], {"COROLIB_DEBUG": ""}, "debug"),
        (["--production"], {"COROLIB_DEBUG": ""}, "production"),
        (["--production"], {"COROLIB_DEBUG": "1"}, "production"),
        ([], {"COROLIB_DEBUG": "0"}, "production"),
        ([], {"COROLIB_DEBUG": "", "PYTHONOPTIMIZE": "1"}, "production"),
    ],
)
def test_run_runs_a_function_in_debug_mode_unless_it_is_for_production(
    folder, words, variables, mode
):
    assert outcome("run", "app.py:main", *words, variables=variables) == (0, f"{mode}\n", "")


def test_what_the_scheduler_does_can_be_recorded(folder):
    status, out, err = outcome("run", "app.py:main", "--trace", "run.jsonl")
    assert (status, out, err) == (0, "debug\n", f"{folder.resolve() / 'run.jsonl'}\n")
    status, out, err = outcome("run", "app.py:main", "--trace", "nowhere/run.html")
    assert (status, out) == (1, "")
    assert err == "ValueError: trace='nowhere/run.html': there is no folder 'nowhere'\n"
    assert json.loads((folder / "run.jsonl").read_text().splitlines()[0])["argv"] == ["app.py:main"]
    (folder / "program.py").write_text("import app, corolib\ncorolib.run(app.main)\n")
    assert outcome("trace", "-o", "-", "program.py")[0] == 0
    assert outcome("convert", "run.jsonl", "run.html") == (0, "", "")
    assert (folder / "run.html").read_text("utf-8").startswith("<!doctype html>")
    status, out, err = outcome("convert", "app.py", "run.html")
    assert (status, out) == (1, "")
    assert err.startswith("app.py: ")


def test_the_program_is_started_anew_with_all_that_it_was_given(monkeypatch):
    begun = []
    monkeypatch.setattr(os, "execv", lambda path, words: begun.append((path, words)))
    monkeypatch.setattr(os, "environ", {"COROLIB_DEBUG": "1" if DEBUG else ""})
    ensure_mode(production=DEBUG)  # not as it is
    assert begun == [(sys.executable, [sys.executable, *sys.orig_argv[1:]])]
    assert os.environ["COROLIB_DEBUG"] == ("0" if DEBUG else "1")


@pytest.mark.found("E6")
def test_the_two_servers_of_the_first_screen_come_with_the_package(folder):
    for name, ports in (("echo", []), ("time", ["--daytime-port=0"])):
        with begin("demo", name, "--port=0", *ports) as process:
            assert re.match(
                rf"{name} on 127.0.0.1 port \d+, TCP and UDP", process.stdout.readline()
            )
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130 and quiet(err)


def test_at_a_terminal_the_end_stands_below_the_mark_of_ctrl_c(folder):
    path = folder / "start.py"
    path.write_text(
        "import os, sys\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'corolib', 'serve', 'app.py:echo', "
        "'--port=0'])\n"
    )
    with socket.socket() as client:
        client.settimeout(PATIENCE)

        def watch(pid, shown):
            begun = re.fullmatch(rb".*:(\d+), .*; Ctrl-C ends it\r\n", shown)
            if begun:
                client.connect(("127.0.0.1", int(begun[1])))
                client.sendall(b"hello")
                assert client.recv(10) == b"hello"
                os.kill(pid, signal.SIGINT)
            elif b"stopping" in shown:
                client.close()

        shown = at_terminal(path, watch=watch)
    assert re.fullmatch(
        r"app.py:echo on 127.0.0.1:\d+, in debug mode; Ctrl-C ends it\n\n"
        r"stopping: 1 handler may finish, within 5 s; Ctrl-C again ends all at once\n\n"
        r"stopped: 1 finished, 0 had to be cancelled\n",
        shown,
    ), shown


# Mistakes of the program ------------------------------------------------------------------------

MISTAKES = """
from corolib import Suspend

def no_yield(stream):
    stream.sendall(b"x")

def of_asyncio(reader, writer):
    yield

of_python = iter  # which does not say what it takes

def fails():
    yield
    raise LookupError("gone")

def has_no_file():
    open("nothing")
    yield

def waits_for_ever():
    yield Suspend(lambda wake: lambda: None, "nothing")
"""


@pytest.fixture
def mistakes(folder):
    (folder / "app.py").write_text(APP + MISTAKES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("serve app.py:no_yield --port=0", r"TypeError: serve\(\) got no_yield\(\) .*no `yield`.*"),
        ("serve app.py:no_yield --port=0 --workers=2", r"TypeError: serve\(\) got no_yield\(\) .*"),
        ("serve app.py:of_asyncio --port=0", r"TypeError: serve\(\) calls of_asyncio\(\) .*"),
        ("run app.py:of_python", r"TypeError: .*"),
        ("serve app.py:echo --unix=/no/x", r"--unix: cannot listen on '/no/x': No such file .*"),
        ("serve app.py:echo --unix=app.sock --port 0", r"--unix and --host or --port: a server .*"),
        ("serve app.py:echo --tls=app.py", r"--tls app.py: .*`cat cert.pem key.pem > both.pem`"),
        (
            "serve app.py:main",
            r"main\(\) takes no stream, so it is no handler: a function is run, by "
            r"`python3 -m corolib run app.py:main`",
        ),
        ("trace nothing.py", r"nothing.py: there is no such program here, in /.*"),
        (
            "trace app.py:main",
            r".*recorded by `python3 -m corolib run app.py:main --trace trace.html`",
        ),
        ("run app.py:number", r"app.py has no function 'number'; it has: .*"),
        ("run app.py:of_asyncio", r"of_asyncio\(\) takes reader, writer, and `run` gives .*"),
        (
            "run app.py:echo",
            r"echo\(\) takes stream, and `run` gives it nothing: a handler is served, by "
            r"`python3 -m corolib serve app.py:echo`",
        ),
    ],
)
def test_a_mistake_is_one_line(mistakes, words, said):
    status, out, err = outcome(*words.split())
    assert (status, out) == (1, "")
    assert re.fullmatch(said + r"\n", err), err


def test_a_deadlock_is_shown_without_frames(mistakes):
    status, _, err = outcome("run", "app.py:waits_for_ever")
    assert status == 1
    assert err.startswith("corolib.Deadlock: no task can ever run again:\n")


@pytest.mark.parametrize(
    ("name", "said"),
    [("fails", "LookupError: gone"), ("has_no_file", "FileNotFoundError: .*'nothing'")],
)
def test_of_an_error_the_frames_of_the_program_are_shown(mistakes, name, said):
    status, out, err = outcome("run", f"app.py:{name}")
    assert (status, out) == (1, "")
    assert err.count("  File ") == 1
    assert re.search(rf'  File ".*/app.py", line \d+, in {name}\n', err)
    assert re.fullmatch(said, err.splitlines()[-1])


@pytest.mark.parametrize("error", [LookupError("ours"), OSError(errno.EADDRINUSE, "taken")])
def test_what_fails_inside_corolib_is_not_cut(error):
    scope = {"__name__": "corolib.inside", "error": error}
    exec("def main(options):\n    raise error", scope)
    with pytest.raises(type(error)) as caught:
        told_of_mistakes(scope["main"])(None)
    assert caught.value is error


@pytest.mark.parametrize("call", ["run", "run_workers"])
def test_a_file_that_runs_itself_is_refused(folder, call):
    arguments = {"run": "app.main", "run_workers": "1, app.main"}[call]
    source = f"import app, corolib\nfrom app import echo, main\ncorolib.{call}({arguments})\n"
    (folder / "other.py").write_text(source)
    (folder / "module.py").write_text("from other import echo\n")
    said = (
        f'other.py calls {call}() when it is imported: put it under `if __name__ == "__main__":`\n'
    )
    assert outcome("serve", "other.py:echo", "--port=0") == (1, "", said)
    assert outcome("run", "other:main") == (1, "", said)
    with pytest.raises(SystemExit) as caught:
        load("module.py:echo")
    assert f"{caught.value.code}\n" == said
    assert run(load("app.py:gives")) == 5  # what stood there meanwhile is gone


def test_a_thread_may_run_something_while_a_file_is_imported(folder):
    (folder / "other.py").write_text(
        "import app, corolib, threading\n"
        "results = []\n"
        "thread = threading.Thread(target=lambda: results.append(corolib.run(app.gives)))\n"
        "thread.start()\n"
        "thread.join()\n"
        "def f(): yield\n"
    )
    assert load("other.py:f").__globals__["results"] == [5]


# What is named ----------------------------------------------------------------------------------


def test_a_function_is_found_in_a_file_or_in_a_module(folder):
    (folder / "module.py").write_text("import app\ndef f(): yield\n")
    (folder / "other.py").write_text("import module\nf = module.f\n")
    assert load("app.py:echo").__name__ == "echo"
    assert load("module:f") is load("other.py:f")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("app.py", "app.py: give a file, a colon and a function, as in app.py:echo"),
        ("app.py:", "app.py:: give a file, a colon and a function, as in app.py:echo"),
        ("app.py:ecco", "app.py has no function 'ecco'; it has: echo, main, gives"),
        ("app.py:number", "app.py has no function 'number'; it has: echo, main, gives"),
        ("nothing.py:f", "nothing.py: there is no such file here, in "),
        ("nothing:f", "there is no module 'nothing'; a file is written with its ending, as app.py"),
        ("empty.py:f", "empty.py has no function 'f'; it has: none"),
    ],
)
def test_what_is_not_there_is_one_line(name, said, folder):
    (folder / "empty.py").write_text("")
    with pytest.raises(SystemExit) as caught:
        load(name)
    assert str(caught.value.code).startswith(said)
    sys.modules.pop("empty", None)


def test_a_module_that_lacks_another_one_fails_as_always(folder):
    (folder / "module.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        load("module:f")
