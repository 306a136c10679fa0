"""From a blocking socket to a coroutine scheduler in twelve steps: begin with `README.md` here."""
