"""What becomes of a program when the operating system says no: a matrix, made by machine.

Five programs that run (`programs.py`): a server, one with TLS, one whose handlers use threads, one
for UDP, and a client. Each system call on files that `strace` sees them make once they have started
is made to fail, with each error that its manual page names and with others that any call may have;
once, and for a while. What must hold then is said in `cells.py`, and where it does not, in
`expected.py`.

    python -m tests.net.system_errors                     every cell: about half an hour
    python -m tests.net.system_errors --part 3/20         a twentieth of them
    python -m tests.net.system_errors udp recvfrom EIO    those with these words
    python -m tests.net.system_errors --library asyncio server

`tests/net/test_system_errors.py` tries some of them, and with COROLIB_SWEEP=full more.

What came of it, on Python 3.11, where the errors come each time. Nothing was tried of asyncio's
server with threads. "Turns" are cells in which a program turns without a pause and nothing else is
wrong; `expected.py` lists those of corolib, with the reason. asyncio is loud where each connection
is reported, for it does not name the peer.

    program    corolib: right  turns  else    asyncio: right  turns  loud  died or deaf
    server                103      7     0                24      9    80            10
    tls                   103      7     0                59      8    46            10
    threads               116      8     0
    udp                    44      4     0                20     18     0            11
    client                184      6     0               142      6     9            24

Where one error comes, at the first, second or third call, corolib's client is right in all 570
cells, and asyncio's in 502 of the 545 that were reached: it dies of any error of `epoll_wait`, and
turns for ever after one of `epoll_ctl` that hits a connection (13). Where they come each time it
dies of all but EINTR there (10), stays deaf after those of `setsockopt` (13), and turns after EINTR
of `epoll_wait` has ended.

How many turn depends a little on how busy the machine is: a program that gets less of it makes
fewer calls. Where one error comes, at the first call, the servers of corolib are right in all cells
too; that of UDP in the 142 of 144 that were reached at the first, second or third.
"""
