"""Pythons that are too old are told so in one sentence, by the library and by the demos.

A checkout may be run by any Python that is there; only pip looks at what `pyproject.toml` asks for.
Both packages are entered by their `__init__.py`, so those two files must be fit for all of them.
"""

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.driving import FULL

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = ["corolib/__init__.py", "demos/__init__.py"]


def run(python, *args):
    """Run an old Python in the checkout; return its status, output and stderr."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COVERAGE"))}
    command = [python, "-B", *args]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def candidates(version):
    """Yield paths at which that version may be; a shim of pyenv's may lead nowhere."""
    yield shutil.which(f"python{version}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")))


def find(version):
    """Return the path of a Python of that version that runs, and which it is exactly."""
    show = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
    for path in filter(None, candidates(version)):
        status, exact, _ = run(path, "-c", show)
        if status == 0 and exact.startswith(f"{version}."):
            return path, exact.strip()
    pytest.skip(f"there is no Python {version} here")


@pytest.mark.found("E6")
@pytest.mark.parametrize("version", ["2.7", "3.6", "3.7", "3.8", "3.9", "3.10"])
def test_a_python_that_is_too_old_is_told_so_in_one_sentence(version):
    python, exact = find(version)
    sentence = f"corolib needs Python 3.11 or newer; this is Python {exact}"
    status, out, err = run(python, "-c", "import corolib")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == f"ImportError: {sentence}"
    modules = ["corolib", "demos", "demos.echo", "demos.web.static"]
    for module in modules if FULL else ["corolib", "demos.web.static"]:
        assert run(python, "-m", module) == (1, "", f"{sentence}\n")


@pytest.mark.found("E6")
@pytest.mark.parametrize("path", ENTRIES)
def test_the_files_that_say_so_can_be_read_by_old_pythons(path):
    """Where none is installed, that is all that can be seen."""
    ast.parse((ROOT / path).read_text("ascii"), feature_version=(3, 6))


@pytest.mark.parametrize("path", ENTRIES)
def test_they_say_so_before_anything_else(path):
    docstring, imported, checked, *_ = ast.parse((ROOT / path).read_text()).body
    assert ast.unparse(docstring.value)
    assert ast.unparse(imported) == "import sys"
    assert ast.unparse(checked.test) == "sys.version_info < (3, 11)"
