"""All demos, with a line each.

    $ python3 -m demos
    demos
      demos.chat      A chat room: messages go to all clients, and a slow one delays no other.
      ...

`python3 -m demos web` lists one folder, and so does `python3 -m demos.web`. Each demo is run by its
own name, as in `python3 -m demos.chat`.

They are found by looking, not by importing them: so a package that is not installed hides none. A
demo is a module that defines `main`, or a package that has a `__main__.py` which is no such list;
the first line of its docstring says what it is.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

from demos.start import start

HERE = Path(__file__).parent


def demos() -> dict[str, str]:
    """Return all demos, each with the first line of its docstring; folder by folder, in order."""
    found = {}
    for path in sorted(HERE.rglob("*.py"), key=lambda path: (path.parent, not is_main(path), path)):
        tree = ast.parse(path.read_text("utf-8"), path)
        if not lists(tree) and (is_main(path) or defines_main(tree)):
            runs = path.parent if is_main(path) else path.with_suffix("")
            name = ".".join(runs.relative_to(HERE.parent).parts)
            found[name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    del found[HERE.name]  # this one
    return found


def lists(tree: ast.Module) -> bool:
    """Return whether a file lists a folder, as this one can."""
    return any(
        isinstance(node, ast.ImportFrom) and node.module == "demos.__main__" for node in tree.body
    )


def is_main(path: Path) -> bool:
    return path.name == "__main__.py"


def defines_main(tree: ast.Module) -> bool:
    """Return whether a file has a `main`, its own or one of corolib's."""
    own = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
    return own or "main" in {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("corolib.demo.")
        for alias in node.names
    }


def folder_of(name: str) -> str:
    """Return the folder that a demo stands in, with dots: a package stands in itself."""
    return name if HERE.parent.joinpath(*name.split(".")).is_dir() else name.rpartition(".")[0]


def show(part: str | None = None) -> None:
    """Print all demos, or those of a folder."""
    found = demos()
    if part is not None:
        whole = f"demos.{part.removeprefix('demos.')}"
        if whole in found:
            sys.exit(f"{whole} is run by: python3 -m {whole}")
        found = {name: line for name, line in found.items() if name.startswith(f"{whole}.")}
        if not found:
            sys.exit(f"{whole} is not among the demos")
    width = max(map(len, found))
    folder = ""
    for name, line in found.items():
        if folder_of(name) != folder:
            folder = folder_of(name)
            print(folder)
        print(f"  {name:{width}}  {line}")


def main(options: argparse.Namespace) -> None:
    show(options.name)


if __name__ == "__main__":
    start(main, __doc__, arguments={"name": {"nargs": "?", "help": argparse.SUPPRESS}})
