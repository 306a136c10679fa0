"""What becomes of a program when the operating system says no: a matrix, made by machine.

Four programs that run (`programs.py`): a server, one with TLS, one for UDP, and a client. Each
system call on files that `strace` sees them make once they have started is made to fail, with each
error that its manual page names and with others that any call may have; once, and for a while. What
must hold then is said in `cells.py`, and where it does not, in `expected.py`.

    python -m tests.net.system_errors                     every cell: it takes hours
    python -m tests.net.system_errors --part 3/20         a twentieth of them
    python -m tests.net.system_errors udp recvfrom EIO    those with these words
    python -m tests.net.system_errors --library asyncio server

`tests/net/test_system_errors.py` tries some of them, and with COROLIB_SWEEP=full more.
"""
