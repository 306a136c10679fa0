"""What needs another library says how to get it."""

import importlib
import sys

import pytest

from tests.helpers.programs import ROOT


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("redis", "hiredis", "redis"), ("psycopg", "psycopg", "postgres")],
)
def test_a_library_that_is_missing_is_named_with_its_extra(name, library, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"corolib.interop.{name}", raising=False)
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(f"corolib.interop.{name}")
    assert caught.value.name == library
    text = str(caught.value)
    assert text.startswith(f"corolib.interop.{name} needs {library}")
    first, _, second = text.partition(", or ")
    assert first.endswith(f"pip install '.[{extra}]' in a checkout of corolib")
    requirement = second.removeprefix("pip install '").removesuffix("'")
    assert f'{extra} = ["{requirement}"]' in (ROOT / "pyproject.toml").read_text()
