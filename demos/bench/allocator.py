"""The C library's allocator, brought into the same state for every contestant.

glibc takes a block of 128 KiB or more from the kernel, and gives it back when the block is freed,
until one as large has been freed once: from then on it keeps blocks of up to that size (`mallopt`,
M_MMAP_THRESHOLD). asyncio asks for 256 KiB at each `recv`. So its echo makes three more system
calls for each message, and takes twice the time or more, unless something large was freed earlier:
by a module that was imported, as with Python 3.15, or by a file that was read. Most large programs
have done so, a benchmark may not have; and that is chance, and says nothing of any library.
"""

from __future__ import annotations


def settle() -> None:
    """Free 4 MiB, once: the allocator keeps what is smaller from now on.

    It must be no more than 32 MiB: of what is larger glibc learns nothing. Another C library is
    left as it is.
    """
    block = bytes(1 << 22)
    del block
