"""A key-value server for clients of Redis: `python3 -m demos.keyvalue`."""
