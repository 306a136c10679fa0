"""Two servers for the web, on protocol libraries that do no I/O of their own: h11 and wsproto."""
