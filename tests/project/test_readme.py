"""Everything that README.md and the pages of the guide show is done here, by the book.

- Each ```python block is a whole program. It runs in a process of its own, as `/srv/app.py`; most
  in forks of one that has imported corolib.
- A ```text block right after it is what it prints, on both streams. White space is free, since
  long messages are wrapped in prose; a line `...` stands for anything, and so does the number of
  a file. Without such a block it prints nothing. It fails if and only if a traceback is shown.
- A block with the port 7007 is an echo server: real clients talk to it, then Ctrl-C ends it. One
  with 7008 as well has another server there, which SIGTERM stops too.
- The functions of a block that are called `test_...` are called.
- `<!-- run with: ... -->` before a block gives options of the interpreter.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest

import corolib
from demos.__main__ import demos
from tests.helpers.programs import dialled, pythons, without_slow_steps
from tests.helpers.sockets import can_forge, forge, reset

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
GUIDE = ROOT / "demos" / "guide"
PAGES = [ROOT / "README.md", *sorted(GUIDE.glob("*.md"))]
HERE = "/srv"  # stands in the README for the folder in which its programs are
PATIENCE = 30  # seconds that a program may take; they all take a fraction of one


class Block(NamedTuple):
    """A fenced block: its language, text, line in the page, the line before it, and the page."""

    kind: str
    text: str
    line: int
    before: str
    page: str


class Program(NamedTuple):
    """A block of Python, and what it prints."""

    block: Block
    output: str


def blocks_of(text, page="README"):
    """Return the fenced blocks of a Markdown text, in order."""
    found, lines = [], text.split("\n")
    rest = iter(enumerate(lines, 1))
    for number, line in rest:
        if not line.startswith("```"):
            continue
        body = []
        for _, inner in rest:
            if inner.rstrip() == "```":
                break
            body.append(inner)
        else:
            raise AssertionError(f"the block opened in line {number} is never closed")
        before = lines[number - 2] if number > 1 else ""
        found.append(Block(line[3:].strip(), "\n".join(body) + "\n", number, before, page))
    return found


def programs_of(text, page="README"):
    """Return the blocks of Python, each with the text block that follows it at once."""
    found = []
    blocks = blocks_of(text, page)
    for block, after in zip_longest(blocks, blocks[1:]):
        if block.kind != "python":
            continue
        end = block.line + block.text.count("\n") + 1
        shown = after is not None and after.kind == "text" and after.line == end + 2
        found.append(Program(block, after.text if shown else ""))
    return found


TEXTS = {path.stem: path.read_text("utf-8") for path in PAGES}
BLOCKS = [block for page, text in TEXTS.items() for block in blocks_of(text, page)]
PROGRAMS = [program for page, text in TEXTS.items() for program in programs_of(text, page)]
FOREIGN = re.compile(r"^(?:from|import) (curio|gevent|trio|twisted)\b", re.MULTILINE)
RUN_WITH = re.compile(r"<!-- run with: (.*) -->")
SERVERS = [p for p in PROGRAMS if "7007" in p.block.text]
OTHERS = [p for p in PROGRAMS if "7007" not in p.block.text]


def name_of(program):
    return f"{program.block.page}-line-{program.block.line}"


def written(text, folder):
    """Write a program down, with the certificate that it may want, and return its path."""
    path = folder / "app.py"
    tests = re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)
    path.write_text(text + "".join(f"{name}()\n" for name in tests), "utf-8")
    if "localhost.pem" in text:
        shutil.copy(ROOT / "demos" / "bench" / "localhost.pem", folder)
    return path


def command_for(program, folder, text):
    """Write a program down and return the command that runs it."""
    path = written(text, folder)
    options = RUN_WITH.fullmatch(program.block.before)
    return [sys.executable, "-u", *(options[1].split() if options else ()), str(path)]


def environment():
    """Return the environment for a program: ours, and this checkout's corolib."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}


def in_readmes_words(output, folder):
    """Return what a program printed as the README would show it: in debug mode, a slow machine is
    told of slow steps besides.
    """
    output = re.sub(r"^task \S+ took .* s for one step, .*\n", "", output, flags=re.MULTILINE)
    return output.replace(str(folder), HERE)


def matches(shown, printed):
    """Return whether `printed` is what a text block shows."""

    def normal(text):
        return " ".join(re.sub(r"\bfd=\d+", "fd=N", text).split())

    parts = re.split(r"^[ \t]*\.\.\.[ \t]*$", shown, flags=re.MULTILINE)
    pattern = " .*".join(re.escape(normal(part)) for part in parts)
    return re.fullmatch(pattern, normal(printed)) is not None


def echoed(client, size):
    """Return as many bytes as were sent, or fewer if the server ends the connection."""
    received = bytearray()
    while len(received) < size and (data := client.recv(65536)):
        received += data
    return bytes(received)


# The programs ------------------------------------------------------------------------------------


def test_there_are_programs_and_no_block_of_an_unknown_kind():
    assert len(SERVERS) >= 2
    assert len(OTHERS) >= 8
    assert {block.kind for block in BLOCKS} == {"python", "text", "sh", "ini", "toml"}


def test_every_text_block_is_the_output_of_a_program():
    shown = [block.text for block in BLOCKS if block.kind == "text"]
    assert shown == [p.output for p in PROGRAMS if p.output]


def needs_its_own_process(program):
    """Return whether a program needs options of the interpreter, another program, or a library."""
    others = "corolib.interop.psycopg", "corolib.interop.redis"
    text = program.block.text
    with_options = RUN_WITH.fullmatch(program.block.before)
    return with_options or FOREIGN.search(text) or any(other in text for other in others)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """For each program that needs no more than a fork: its exit status, what it printed, where."""
    alike = [program for program in OTHERS if not needs_its_own_process(program)]
    paths = [written(each.block.text, tmp_path_factory.mktemp("srv")) for each in alike]
    found = pythons([path.read_text("utf-8") for path in paths], paths=[*map(str, paths)])
    return {
        program: (status, printed, path.parent)
        for program, (status, printed, _), path in zip(alike, found, paths, strict=True)
    }


@pytest.mark.parametrize("program", OTHERS, ids=name_of)
def test_a_program_does_what_the_readme_says(program, ran, tmp_path, request):
    if needs_its_own_process(program):
        status, printed, folder = run_alone(program, tmp_path, request)
    else:
        status, printed, folder = ran[program]
    printed = in_readmes_words(printed, folder)
    assert matches(program.output, printed), f"it printed:\n{printed}"
    fails = program.output.startswith("Traceback")
    assert status == (1 if fails else 0), printed


def run_alone(program, folder, request):
    """Run a program in a process of its own: return exit status, what it printed, and where."""
    settings = environment()
    if foreign := FOREIGN.search(program.block.text):
        pytest.importorskip(foreign[1])
    if "corolib.interop.psycopg" in program.block.text:
        pytest.importorskip("psycopg", exc_type=ImportError)
        settings |= request.getfixturevalue("postgres").environment
    if "corolib.interop.redis" in program.block.text:
        pytest.importorskip("hiredis")
        settings["REDIS_PORT"] = str(request.getfixturevalue("redis_server").port)
    done = subprocess.run(
        command_for(program, folder, program.block.text),
        cwd=folder,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
        encoding="utf-8",
    )
    return done.returncode, done.stdout, folder


def start(program, folder, ports):
    """Start a server, with these ports in the place of those that the README names."""
    text = program.block.text
    for name, port in zip(("7007", "7008"), ports, strict=True):
        text = text.replace(name, str(port))
    return subprocess.Popen(
        command_for(program, folder, text),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        # whoever runs the tests in the background may have SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.found("D10")
@pytest.mark.parametrize("program", SERVERS, ids=name_of)
def test_a_server_echoes_and_ends_at_ctrl_c(program, tmp_path, reserved_ports):
    port = reserved_ports[0]
    with start(program, tmp_path, reserved_ports) as server:
        try:
            with dialled(port, server) as first, dialled(port, server) as second:
                first.sendall(b"one")
                second.sendall(b"two")
                assert echoed(second, 3) == b"two"
                assert echoed(first, 3) == b"one"
                # Far more than the kernel's buffers hold, so that the server must wait to write.
                much = os.urandom(1000) * 8000
                sender = threading.Thread(target=second.sendall, args=[much])
                sender.start()
                time.sleep(0.05)  # nobody reads meanwhile, so that they fill up
                assert echoed(second, len(much)) == much
                sender.join()
                first.shutdown(socket.SHUT_WR)
                assert first.recv(1) == b""
                for _ in range(10):
                    third = dialled(port, server)
                    third.sendall(b"three")
                    assert echoed(third, 5) == b"three"
                    reset(third)
                second.sendall(b"two")
                assert echoed(second, 3) == b"two"
                server.send_signal(signal.SIGINT)
                second.shutdown(socket.SHUT_WR)  # so that a graceful stop need not wait for long
                output, _ = server.communicate(timeout=PATIENCE)
                assert second.recv(1) == b"", "the connection that was open is closed in order"
        finally:
            server.kill()
    assert output.endswith("\nKeyboardInterrupt\n"), output
    assert output.count("Traceback") == 1, output
    # The lines of the program, and one of the library's: that of `run()`, or of `run_workers()`.
    assert output.count(f'File "{Path(corolib.__file__).parent}') == 1, output
    assert server.returncode == -signal.SIGINT


@pytest.mark.found("N23")
@pytest.mark.skipif(not can_forge(), reason="this user can forge no datagrams")
def test_the_server_of_datagrams_survives_one_that_cannot_be_answered(capsys):
    """It seems to come from port 0, to which nothing can be sent."""
    (program,) = [p for p in OTHERS if "open_udp(local=" in p.block.text]
    line = "        yield from client.send("
    forged = '        forge(b"x", ("127.0.0.1", 0), client.peer)\n'
    text = program.block.text.replace(line, forged + line, 1)
    assert text != program.block.text
    exec(compile(text, "app.py", "exec"), {"forge": forge})
    assert matches(program.output, capsys.readouterr().out)


@pytest.mark.found("N4")
def test_the_program_with_two_ports_stops_both_gracefully(tmp_path, reserved_ports):
    (program,) = [p for p in SERVERS if "7008" in p.block.text]
    with start(program, tmp_path, reserved_ports) as server:
        try:
            with (
                dialled(reserved_ports[0], server) as echo,
                dialled(reserved_ports[1], server) as shout,
            ):
                for client, answer in ((echo, b"hello\n"), (shout, b"HELLO\n")):
                    client.sendall(b"hello\n")
                    assert echoed(client, 6) == answer
                server.send_signal(signal.SIGTERM)
                for client, answer in ((echo, b"bye\n"), (shout, b"BYE\n")):
                    client.sendall(b"bye\n")
                    assert echoed(client, 4) == answer
                    client.shutdown(socket.SHUT_WR)
                    assert client.recv(1) == b""
            output, _ = server.communicate(timeout=PATIENCE)
        finally:
            server.kill()
    assert (server.returncode, without_slow_steps(output)) == (0, "")


def test_the_first_program_comes_first_and_is_the_first_screen():
    program = PROGRAMS[0].block
    assert program in SERVERS[0]
    assert program.line < 15
    assert program.line + program.text.count("\n") < 50


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a b\n", "a\n  b\n", True),
        ("a b\n", "a c\n", False),
        ("", "\n", True),
        ("", "a\n", False),
        ("a\n", "", False),
        ("a\n...\nz\n", "a\nb\nc\nz\n", True),
        ("a\n...\nz\n", "a\nz\n", True),
        ("a\n...\nz\n", "a\nz\nmore\n", False),
        ("fd=6: no\n", "fd=17: no\n", True),
        ("a.c\n", "abc\n", False),
    ],
)
def test_the_comparison_of_outputs_can_fail(shown, printed, same):
    assert matches(shown, printed) is same


# What else it names ------------------------------------------------------------------------------


def test_the_test_command_is_where_machines_look_for_it():
    marked = [b for b in BLOCKS if b.before == "<!-- test command -->"]
    assert [block.kind for block in marked] == ["sh"]
    assert README.count("<!-- test command -->") == 1
    assert "pytest" in marked[0].text
    subprocess.run(["bash", "-n", "-c", marked[0].text], check=True)


def test_it_can_be_read_in_one_sitting():
    assert len(README.splitlines()) <= 220


def shell(number):
    """Return one of the README's blocks for the shell."""
    return [block.text for block in BLOCKS if (block.page, block.kind) == ("README", "sh")][number]


@pytest.mark.parametrize("number", [0, 2], ids=["serve", "demo"])
def test_the_commands_of_the_first_page_serve(number, tmp_path, reserved_ports):
    """The server of the command, with the client of the page, which needs nothing but Python."""
    port = str(reserved_ports[0])
    written(PROGRAMS[0].block.text, tmp_path)
    python = shlex.quote(sys.executable)
    command, client = (
        shell(each).replace("python3", python).replace("7007", port) for each in (number, 1)
    )
    with subprocess.Popen(
        ["sh", "-c", f"exec {command}"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as server:
        try:
            said = server.stdout.readline()
            assert port in said
            done = subprocess.run(["sh", "-c", client], capture_output=True, timeout=PATIENCE)
            assert (done.stdout, done.stderr) == (b"b'hello\\n'\n", b"")
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=PATIENCE)
        finally:
            server.kill()
    assert server.returncode == 130


def test_what_the_first_page_says_of_an_echo_is_what_was_recorded():
    rows = re.findall(r"^\| (.*?) \| [\d.]+ \| ([\d.]+)† \|", TEXTS["speed"], re.MULTILINE)
    streams = {name: float(ratio) for name, ratio in rows}
    assert "as much CPU time as a protocol of asyncio's" in README
    assert 0.9 <= streams["asyncio protocol"] <= 1.1
    assert "half of\nwhat its streams take" in README
    assert 0.45 <= streams["asyncio streams"] <= 0.55
    assert "a fifth more than a loop on epoll that is written by hand" in README
    assert 1.15 <= streams["epoll by hand"] <= 1.25


def test_the_commands_name_demos_that_exist_and_options_that_they_have():
    commands = re.findall(r"^python3 -m (demos\S+)(.*)$", TEXTS["demos"], re.MULTILINE)
    assert "demos.echo" in {name for name, _ in commands}
    for name, options in commands:
        assert name in demos()
        helped = subprocess.run(
            [sys.executable, "-m", name, "--help"],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert helped.returncode == 0, helped.stderr
        for option in re.findall(r"--[\w-]+", options):
            assert option in helped.stdout, f"{name} has no {option}"


def test_the_table_of_demos_lists_all_of_them_and_no_others():
    rows = re.findall(r"^\| `(demos[\w.]*)` \|", TEXTS["demos"], re.MULTILINE)
    missing = sorted(demos().keys() - set(rows))
    too_much = sorted(set(rows) - demos().keys())
    twice = sorted({name for name in rows if rows.count(name) > 1})
    assert (missing, too_much, twice) == ([], [], []), f"{missing=}\n{too_much=}\n{twice=}"


def test_each_short_answer_is_a_program():
    text = TEXTS["answers"]
    answers = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    assert f"There are {len(answers)}." in text
    assert [answer.split("\n")[0] for answer in answers if "```python" not in answer] == []


def section(title):
    """Return the text of one section."""
    return README.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_it_names_the_pythons_that_the_package_declares():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert re.findall(r"\b3\.\d+\b", section("What is supported")) == declared


def test_the_keywords_of_run_and_spawn_are_named():
    import inspect

    for function in (corolib.run, corolib.spawn):
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                assert f"`{parameter.name}=`" in TEXTS["spelling"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_that_exist(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (page.parent / target).exists(), target
    for path in re.findall(r"`((?:tests|demos|corolib)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path
