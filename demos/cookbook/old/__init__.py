"""The old shapes of the programs in this cookbook, each with its fault: how not to do it.

Each is the least that has the shape, written for this comparison; the twin of the same name is one
folder up.
"""
