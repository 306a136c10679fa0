"""The tests of corolib: a folder for each package of it, and `helpers` for what they share."""

import os

import pytest

pytest.register_assert_rewrite("tests.helpers")  # what fails there shall be shown as well

# The plugin for pytest would have debug mode on. In this suite COROLIB_DEBUG=1 says so.
os.environ.setdefault("COROLIB_DEBUG", "")
