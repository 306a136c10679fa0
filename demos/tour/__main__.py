"""The way into the tour: its steps, and for each the page, the program and its client beside it.

    $ python3 -m demos.tour
    1  one client at a time
    ...
    $ python3 -m demos.tour 5

At a terminal it asks which step is wanted. What it shows is in `README.md`, in this folder.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from demos.start import at_least, start

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = HERE / "README.md"
STEP, CLIENT = "demos.tour.step", "demos.tour.client"
AFTER = """
That was the last one. How to write a scheduler of your own, with a judge, and where to find in
corolib what you know now, is at the end of the page: demos/tour/README.md, from "Your own" on."""


@dataclass
class Step:
    """One step: what is shown of the page, the program, and what is run beside it."""

    number: int
    title: str
    text: str  # its section, and the job's before the first
    program: str
    clients: list[str]
    others: list[str]  # programs that are to be run after it


def steps() -> list[Step]:
    """Return all steps, as they stand on the page."""
    found = []
    before = ""
    parts = re.split(r"^## (?:Step (\d+): )?(.*)\n", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    for number, title, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        title = title.replace("`", "")
        if not number:
            before += f"{title}\n{text}"
        else:
            typed = re.findall(r"^(?:\$ )?python3 -m (demos\.tour\..*)$", text, re.MULTILINE)
            commands = list(dict.fromkeys(typed))
            program = next(name for name in commands if f".step{int(number):02}" in name)
            clients = [name for name in commands if name.startswith(CLIENT)]
            others = [name for name in commands if not name.startswith((STEP, CLIENT))]
            shown = f"{before}Step {number}: {title}\n{text}"
            found.append(Step(int(number), title, shown, program, clients, others))
            before = ""
    return found


def show(step: Step) -> None:
    """Print what the page says of a step."""
    shown = re.sub(r"^<!-- .*? -->\n", "", step.text, flags=re.MULTILINE)
    shown = re.sub(
        r"^!\[(.*)\]\(\.\./(.*)\)$", r"(Picture demos/\2: \1.)", shown, flags=re.MULTILINE
    )
    print(shown)


def run(step: Step) -> None:
    """Run the program of a step, if it is a server with its clients beside it; then the others."""
    if is_server(step):
        serve(step)
    else:
        run_alone(step.program)
    for name in step.others:
        run_alone(name)


def run_alone(name: str, *options: str) -> None:
    print(f"--- python3 -m {name}", flush=True)
    command = [sys.executable, "-m", *shlex.split(name), *options]
    subprocess.run(command, cwd=ROOT, check=False)


def serve(step: Step) -> None:
    print(f"--- python3 -m {step.program}", flush=True)
    command = [sys.executable, "-m", *shlex.split(step.program), "--port=0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        print(f"server: {line}", end="", flush=True)
        port = re.search(r"port (\d+)", line)
        rest = threading.Thread(target=pass_on, args=(server.stdout,), daemon=True)
        rest.start()
        try:
            for client in (step.clients or [CLIENT]) if port else []:
                run_alone(client, f"--port={port and port[1]}")
        finally:
            server.terminate()
            rest.join()


def is_server(step: Step) -> bool:
    name = step.program.split()[0].rpartition(".")[2]
    return "listen(options)" in (HERE / f"{name}.py").read_text("utf-8")


def pass_on(lines: object) -> None:
    for line in lines:  # type: ignore[attr-defined]
        print(f"server: {line}", end="", flush=True)


def menu(found: list[Step]) -> None:
    for step in found:
        print(f"{step.number:2}  {step.title}")


def ask(found: list[Step]) -> None:
    """Let the person at the terminal go from step to step."""
    following = 1
    while following <= len(found):
        with suppress(EOFError):
            answer = input(f"\nWhich step? Enter: {following}; q: end. ").strip() or str(following)
            if answer.isdecimal() and 1 <= int(answer) <= len(found):
                step = found[int(answer) - 1]
                show(step)
                input("Enter runs it, with its client beside it. ")
                with suppress(KeyboardInterrupt):  # Ctrl-C ends the program, not the tour
                    run(step)
                following = step.number + 1
                if following > len(found):
                    print(AFTER)
                continue
            if answer != "q":
                menu(found)
                continue
        return


def main(options: argparse.Namespace) -> None:
    found = steps()
    if options.step is not None:
        show(found[options.step - 1])
        run(found[options.step - 1])
        return
    menu(found)
    if sys.stdin.isatty() and sys.stdout.isatty():
        ask(found)
    else:
        print("\nThe page is demos/tour/README.md. A step of it, run: python3 -m demos.tour 1")


if __name__ == "__main__":
    number = {"nargs": "?", "type": at_least(1, len(steps())), "help": "show and run this step"}
    start(main, __doc__, arguments={"step": number})
