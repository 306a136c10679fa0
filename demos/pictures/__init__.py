"""The pictures of the tour, each drawn from a run.

`moment` is one moment of a step that is a server: `probe` runs it and looks at it from inside,
`draw` makes the picture. The others are lines in the order in which they run (`story`), level and
edge (`edge`), a task that computes (`compute`), and three tasks in three lanes (`lanes`). A step is
found by its file, so its number does not matter. `replay` draws the page that a trace is, for the
README.
"""
