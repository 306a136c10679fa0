"""From a blocking socket to a coroutine scheduler, in seventeen steps; see `README.md` here."""
