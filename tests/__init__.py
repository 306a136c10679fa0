"""The tests of corolib: a folder for each package of it, and `helpers` for what they share."""

import pytest

pytest.register_assert_rewrite("tests.helpers")  # what fails there shall be shown as well
