"""Programs and libraries in C, compiled where there is a compiler, and kept for the next time."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def compiler() -> str | None:
    """Return the command of the C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compiled(source: Path, *options: str) -> str | None:
    """Return the path of what this file of C is compiled to; None: it could not be."""
    command = compiler()
    if command is None:
        return None
    text = " ".join(options).encode() + source.read_bytes()
    made = cache() / f"{source.stem}-{hashlib.sha256(text).hexdigest()[:16]}"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            new = Path(folder) / source.stem
            arguments = ["-O2", "-o", str(new), str(source), *options]
            if subprocess.run([command, *arguments], capture_output=True).returncode:
                return None
            new.replace(made)
    return str(made)


def cache() -> Path:
    """Return the folder for what is made once: programs, and the results of the last run."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "corolib-bench"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"corolib-bench-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder
