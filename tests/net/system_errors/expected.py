"""The cells in which corolib does not do what `cells.py` asks for, each with its reason.

In all of them one error comes each time that a call is made, and the program turns without a pause
for as long as that lasts. It lives, answers afterwards, and no connection is forgotten.
"""

REPEATED = """Python makes a call that a signal has interrupted again by itself (PEP 475), without a
pause, and returns to nobody meanwhile. A system says so once for each signal."""

IN_VAIN = """The system says of a file that it is ready, and each time that it is not. So the task
that waits for it is woken in vain, and waits again. A pause would have to be thought of at every
wait, and would slow down where it is right to be woken in vain: where several processes accept
from one listener, the others find nothing. No system says both without end."""

REASONS = {
    ("accept4", "EAGAIN"): IN_VAIN,
    ("accept4", "EINTR"): REPEATED,
    ("epoll_wait", "EINTR"): REPEATED,
    ("read", "EAGAIN"): IN_VAIN,
    ("read", "EINTR"): REPEATED,
    ("recvfrom", "EAGAIN"): IN_VAIN,
    ("recvfrom", "EINTR"): REPEATED,
    ("sendto", "EAGAIN"): IN_VAIN,
    # It is the same exception in Python: BlockingIOError.
    ("sendto", "EALREADY"): IN_VAIN,
    ("sendto", "EINTR"): REPEATED,
}


def expected(cell):
    """Return the one word that may be wrong of a cell, or ""."""
    differs = cell.library == "corolib" and cell.when == "1+" and (cell.call, cell.error) in REASONS
    return "spins" if differs else ""
