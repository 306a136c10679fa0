"""Two servers to try corolib with, and how programs of this kind start and end.

echo                    what you send comes back
daytime -> echo         the time, for machines and for people
ports                   how both open theirs, and say that a client has come
start                   options, one line for what cannot be, and a quiet end

`python3 -m corolib demo echo` runs the first. In a checkout `demos/` has many more, and the same.
"""
