"""Five ways to wait for data and three ways to build a server, on one job; see README.md."""
