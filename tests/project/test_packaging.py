"""What is distributed: all files in the source distribution, and what an editable install says."""

import os
import re
import runpy
import subprocess
import sys
import tarfile
import tomllib
import venv
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.helpers.driving import FULL
from tests.helpers.programs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TAKEN_ALWAYS = ["pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"]
TAKEN_ALWAYS += ["pytest_corolib.py"]
PACKAGES = re.compile(r"corolib/(\w+/)*\w+\.py")
DATA = [
    f"{package.replace('.', '/')}/{pattern}"
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items()
    for pattern in patterns
]


def tracked():
    """Return the files of the repository; of a copy without it, all that git would not ignore."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode == 0 and listed.stdout:
        return [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    lines = (ROOT / ".gitignore").read_text().splitlines()
    ignored = [line.strip("/") for line in lines if line and line[0] != "#"]
    ignored += ["PKG-INFO", "setup.cfg"]  # which a source distribution has besides
    names = []
    for folder, below, files in os.walk(ROOT):
        below[:] = [name for name in below if not any(fnmatch(name, each) for each in ignored)]
        files = [name for name in files if not any(fnmatch(name, each) for each in ignored)]
        names += [(Path(folder) / name).relative_to(ROOT).as_posix() for name in files]
    return names


def is_distributed(name):
    """Return whether a file is part of the source distribution: setuptools takes it by itself, or
    MANIFEST.in says so.
    """
    taken = name in TAKEN_ALWAYS or PACKAGES.fullmatch(name) is not None
    taken |= any(fnmatch(name, pattern) for pattern in DATA)
    for line in (ROOT / "MANIFEST.in").read_text().splitlines():
        command, *patterns = line.split()
        if command == "include":
            taken |= name in patterns
        elif command == "graft":
            taken |= name.startswith(tuple(f"{folder}/" for folder in patterns))
        else:
            assert command == "global-exclude", line
            taken &= not any(fnmatch(name, pattern) for pattern in patterns)
    return taken


@pytest.mark.found("E6")
def test_the_source_distribution_has_all_files():
    names = tracked()
    assert {"tests/conftest.py", "demos/__main__.py", "corolib/py.typed"} <= set(names)
    assert [name for name in names if not is_distributed(name)] == []


@pytest.mark.found("E6")
def test_all_packages_are_installed_from_where_they_are():
    settings = PROJECT["tool"]["setuptools"]
    # An editable install is then a path, which type checkers read, and no hook of the import.
    assert settings["package-dir"] == {"": "."}
    assert settings["packages"]["find"]["include"] == ["corolib*"]
    folders = {path.parent for path in ROOT.glob("corolib/**/*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_a_package_index_is_shown_no_link_that_leads_nowhere():
    """It has the README alone: no pictures, and no files to link to."""
    for_index = runpy.run_path(str(ROOT / "setup.py"))["for_index"]
    shown = for_index((ROOT / "README.md").read_text("utf-8"))
    assert "![" not in shown
    targets = re.findall(r"\]\(([^)]*)\)", shown)
    assert [target for target in targets if not target.startswith("https://")] == []
    assert "Short answers (`demos/guide/answers.md`)" in shown
    assert "has a task for each client, and knows for which socket each one waits" in shown


@pytest.mark.skipif(not FULL, reason="makes an environment, in which it builds")
@pytest.mark.found("E6")
def test_the_tests_run_from_the_source_distribution(tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    needed = PROJECT["build-system"]["requires"]
    if subprocess.run([python, "-m", "pip", "install", "-q", *needed]).returncode:
        pytest.skip("pip cannot install setuptools here")
    source = tmp_path / "source"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    build = f"from setuptools import build_meta; print(build_meta.build_sdist({str(tmp_path)!r}))"
    subprocess.run([python, "-c", build], cwd=source, check=True, capture_output=True)
    [path] = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    [unpacked] = (tmp_path / "unpacked").iterdir()
    there = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")}
    assert [name for name in tracked() if name not in there] == []
    assert "(`demos/guide/answers.md`)" in (unpacked / "PKG-INFO").read_text("utf-8")
    tests = [
        "tests/kernel/test_traps.py",
        "tests/project/test_layers.py",
        "tests/demos/test_tour.py",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=unpacked,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
