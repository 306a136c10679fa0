"""Programs to run and to learn from: `python3 -m demos.echo` and `python3 -m demos.time`."""
