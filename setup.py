"""How a package index shows the README; all else about the package is in `pyproject.toml`.

An index has no other file of the repository. So the pictures are left out there, and a link to a
file is that file's name.
"""

import re
from pathlib import Path

PICTURE = re.compile(r"!\[[^\]]*\]\([^)]+\)\n\n")
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)([^)]+)\)")


def for_index(text: str) -> str:
    """Return the README as it stands without the repository around it."""
    return LINK.sub(r"\1 (`\2`)", PICTURE.sub("", text))


if __name__ == "__main__":
    from setuptools import setup

    readme = Path(__file__).with_name("README.md").read_text("utf-8")
    setup(long_description=for_index(readme), long_description_content_type="text/markdown")
