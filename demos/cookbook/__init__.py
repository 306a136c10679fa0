"""Thirteen event-driven programs, written again as generators.

Each was once a loop around `select` with callbacks or handlers; the same program is here with the
same bytes on the wire. The folder `old/` has the old shapes, with their faults, under the same
names, in a few lines: open the two beside each other. `compare` runs both, and shows what differs.
"""
