"""The chapter on deploying: its program runs under what reads its files, or these are checked."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers import haproxy
from tests.helpers.certificates import PEM
from tests.helpers.programs import PATIENCE, ROOT, dialled

PAGE = (ROOT / "demos" / "guide" / "deploying.md").read_text("utf-8")
BLOCKS = re.findall(r"^```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
APP = next(block for block in BLOCKS if block.startswith("import logging"))
LOCAL = "127.0.0.1"


def file(name):
    """Return one of the files that the chapter shows, by its first line."""
    (found,) = [b for b in BLOCKS if re.match(rf"# \S*\b{re.escape(name)}\n", b)]
    return found


@contextmanager
def running(folder, port, *before, text=APP, **variables):
    """Run the chapter's program on that port; end with it."""
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(text)
    with subprocess.Popen(
        [*before, sys.executable, "app.py"],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "COROLIB_DEBUG": "0", "PORT": str(port)}
        | variables,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def echoes(client):
    client.sendall(b"hello")
    return client.recv(100) == b"hello"


def drained(program, client):
    """Tell a program to end while a client is connected; return how it ended."""
    program.send_signal(signal.SIGTERM)
    assert echoes(client), "who is connected is served to the end"
    client.close()
    return program.wait(PATIENCE)


def test_the_program_drains_on_sigterm(tmp_path, reserved_ports):
    port = reserved_ports[0]
    with running(tmp_path, port) as program, dialled(port, program) as client:
        assert echoes(client)
        assert drained(program, client) == 0


def test_a_hangup_as_soon_as_it_is_ready_does_not_end_the_program(tmp_path, reserved_ports):
    port = reserved_ports[0]
    ready = 'notify_systemd("READY=1")'
    assert ready in APP
    text = APP.replace(ready, "os.kill(os.getpid(), signal.SIGHUP)")
    with running(tmp_path, port, text=text) as program, dialled(port, program) as client:
        assert echoes(client)
        assert drained(program, client) == 0


def test_the_program_reads_its_certificate_again(tmp_path, reserved_ports):
    port = reserved_ports[0]
    path = tmp_path / "localhost.pem"
    path.write_text(PEM)
    trusting = ssl.create_default_context(cadata=PEM[PEM.index("-----BEGIN CERT") :])
    with running(tmp_path, port, CERTIFICATE=str(path)) as program:
        for text, said in (
            (None, ""),
            (PEM, "INFO root: the certificate was read again\n"),
            ("broken", "ERROR root: the certificate stays what it was\n"),
        ):
            if text is not None:
                path.write_text(text)
                program.send_signal(signal.SIGHUP)
                assert program.stderr.readline() == said
            with (
                dialled(port, program) as raw,
                trusting.wrap_socket(raw, server_hostname="localhost") as client,
            ):
                assert echoes(client)
        program.send_signal(signal.SIGTERM)
        assert program.wait(PATIENCE) == 0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_systemd_takes_the_units(tmp_path):
    for name in ("echo.socket", "echo.service"):
        text = file(name).replace("/srv/app/venv/bin/python", sys.executable)
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "echo.service", tmp_path / "echo.socket"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    ours = [line for line in done.stderr.splitlines() if "echo." in line]
    assert (done.returncode, ours) == (0, [])


def test_the_units_fit_the_program():
    unit = dict(re.findall(r"^(\w+)=(.*)$", file("echo.service"), re.MULTILINE))
    grace = int(re.search(r"grace=(\d+)", APP)[1])
    assert int(unit["TimeoutStopSec"]) > grace
    assert int(re.search(r"--stop-timeout (\d+)", PAGE)[1]) > grace
    assert "ListenStream=7007" in file("echo.socket")


@pytest.mark.skipif(
    not shutil.which("systemd-socket-activate"), reason="there is no systemd-socket-activate"
)
def test_systemd_hands_the_program_its_socket(tmp_path, reserved_ports):
    """It is named as the unit names it. The port of the program itself is not used."""
    port, unused = reserved_ports
    activate = ["systemd-socket-activate", f"--listen={LOCAL}:{port}", "--fdname=echo.socket"]
    with running(tmp_path, unused, *activate, "--setenv=PYTHONPATH", "--setenv=PORT") as program:
        with dialled(port, program) as client:
            assert echoes(client)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((LOCAL, unused))
            assert drained(program, client) == 0


@pytest.mark.skipif(haproxy.PROGRAM is None, reason="HAProxy is not installed")
def test_behind_haproxy_one_of_two_drains_and_no_client_notices(tmp_path, reserved_ports):
    one, two = reserved_ports
    words = re.search(r'echo "(set server .* state drain)"', PAGE)[1]
    with (
        # The path of a socket is short: at most 107 bytes, with what HAProxy adds to it meanwhile.
        tempfile.TemporaryDirectory(prefix="ha", dir="/tmp") as folder,
        socket.create_server((LOCAL, 0)) as listener,
    ):
        front, fd = listener.getsockname()[1], listener.fileno()
        text = file("haproxy.cfg")
        for shown, used in (
            ("    user haproxy\n    group haproxy\n", ""),  # only root may change them
            (":7000", f"fd@{fd}"),
            ("7007", one),
            ("7008", two),
            ("/run/haproxy/", f"{folder}/"),
        ):
            assert shown in text
            text = text.replace(shown, str(used))
        (tmp_path / "haproxy.cfg").write_text(text)
        command = [haproxy.PROGRAM, "-q", "-f", tmp_path / "haproxy.cfg"]
        with (
            running(tmp_path / "one", one, PROXIES=LOCAL) as first,
            running(tmp_path / "two", two, PROXIES=LOCAL) as second,
        ):
            for port, program in ((one, first), (two, second)):
                dialled(port, program).close()
            with subprocess.Popen([*command, "-db"], pass_fds=[fd]) as balancer:
                try:
                    with dialled(front, balancer) as a, dialled(front, balancer) as b:
                        assert echoes(a)
                        assert echoes(b)
                        with socket.socket(socket.AF_UNIX) as admin:
                            admin.connect(f"{folder}/admin.sock")
                            admin.sendall(f"{words}\n".encode())
                            assert admin.recv(100) == b"\n"
                        first.send_signal(signal.SIGTERM)
                        for _ in range(10):
                            with dialled(front, balancer) as client:
                                assert echoes(client)
                        assert echoes(a), "by whichever of the two"
                        assert echoes(b)
                    assert first.wait(PATIENCE) == 0
                finally:
                    balancer.terminate()
                    balancer.wait(PATIENCE)


def in_a_namespace():
    """Return the command that makes a program process 1, as in a container; None if it may not."""
    command = ["unshare", "--pid", "--fork", "--kill-child"]
    try:
        done = subprocess.run([*command, "true"], capture_output=True, timeout=PATIENCE)
    except FileNotFoundError:
        return None
    return command if done.returncode == 0 else None


def test_the_container_runs_the_program_and_ends_on_sigterm_as_process_1(tmp_path, reserved_ports):
    lines = file("Dockerfile").splitlines()
    assert json.loads(lines[-1].removeprefix("CMD ")) == ["python3", "app.py"]
    for line in lines:
        if line.startswith("COPY corolib"):
            assert (ROOT / line.split()[1]).is_dir()
    variables = dict(line.split()[1].split("=") for line in lines if line.startswith("ENV"))
    command = in_a_namespace()
    if command is None:
        pytest.skip("no namespace of processes can be made here")
    port = reserved_ports[0]
    with (
        running(tmp_path, port, *command, **variables) as program,
        dialled(port, program) as client,
    ):
        assert echoes(client)
        [child] = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert echoes(client)
        client.close()
        assert program.wait(PATIENCE) == 0
