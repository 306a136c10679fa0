"""Little suites of tests that wait, with what is to come of each: see `test_pytest_plugin.py`.

They are run by a pytest of their own. What a test is to do stands in its docstring, a line for each
of its parts that does not pass: `setup fails: WORDS`, `call fails: WORDS`, `teardown fails: WORDS`,
`skipped`, `xfailed`; the words are a regular expression. `shows: WORDS` is about its sections.
"""
