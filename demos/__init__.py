"""Programs to run and to learn from: `python3 -m demos` lists them, with a line each."""
