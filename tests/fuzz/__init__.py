"""Bytes of strangers, at random: for each parser a target, which any input may be given.

    python3 -m tests.fuzz                             lists the targets
    python3 -m tests.fuzz http --seconds 600          tries inputs for ten minutes

A target takes bytes and says in a word what they came to. It raises only where something is wrong.
Inputs are made of those in `corpus/`, by cutting, joining and changing them; one that comes to
something new is used for others as well. What was found is kept in `cases/`, and is tried with the
tests, as is the corpus; `COROLIB_SWEEP=full` tries some thousand new ones for each target.
"""
