"""The pictures of the tour: each step at one moment of a run, and three tasks in three lanes.

`probe` runs the steps and looks at them from inside, `moment` is their clients, `draw` makes the
pictures, `lanes` is the one with the three lanes. A step is found by its file, so its number does
not matter.
"""
