"""Inputs for targets: those that are kept, and new ones that are made of them."""

import random
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
LONGEST = 5000  # bytes of an input: what matters are its parts, and many are to be tried
ODD = [
    *(b"", b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b" ", b"\t", b":", b";", b",", b"="),
    *(b'"', b"'", b"\\", b"%00", b"..", b"/", b"\xff", b"\xc3", "\u202e".encode(), b"\x1b[2J"),
    *(b"0", b"-1", b"00", b"+1", b"1e9", b"0x10", b"4294967296", b"9" * 30, "\u0663".encode()),
]
"""What parsers stumble over."""

Target = Callable[[bytes], str]


def kept(name: str, kind: str) -> list[bytes]:
    """Return the inputs of a target that are kept, in the `corpus` or as `cases`."""
    return [path.read_bytes() for path in sorted((HERE / kind / name).glob("*"))]


def keep(name: str, data: bytes) -> Path:
    """Keep an input that has found something."""
    folder = HERE / "cases" / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{len(list(folder.iterdir())) + 1:03}"
    path.write_bytes(data)
    return path


def changed(pool: list[bytes], rng: random.Random) -> bytes:
    """Return an input that is made of those in the pool."""
    data = bytearray(rng.choice(pool))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        match rng.randrange(8):
            case 0:  # without a piece
                del data[a:b]
            case 1:  # with a piece twice
                data[b:b] = data[a:b]
            case 2:  # with a piece many times
                data[a:b] = data[a : min(b, a + 8)] * rng.randrange(2, 200)
            case 3:  # the end of another one
                other = rng.choice(pool)
                data[a:] = other[rng.randrange(len(other) + 1) :]
            case 4:  # a piece of another one in it
                other = rng.choice(pool)
                start = rng.randrange(len(other) + 1)
                data[a:a] = other[start : start + rng.randrange(64)]
            case 5:
                data[a:a] = rng.choice(ODD)
            case 6:
                data[a : a + rng.randrange(4)] = rng.choice(ODD)
            case _:
                if a < len(data):
                    data[a] = rng.choice((rng.randrange(256), data[a] ^ (1 << rng.randrange(8))))
    return bytes(data[:LONGEST])


def tried(
    target: Target, name: str, rng: random.Random, go_on: Callable[[int], bool]
) -> tuple[int, dict[str, int]]:
    """Try new inputs as long as `go_on(count)`; return how many, and what they came to how often.

    Raises what the target raises, with the input as a note.
    """
    pool = kept(name, "corpus") + kept(name, "cases")
    came_to: dict[str, int] = {}
    count = 0
    while go_on(count):
        data = changed(pool, rng)
        try:
            outcome = target(data)
        except BaseException as exc:
            exc.add_note(f"the input was {data!r}")
            exc.input = data  # type: ignore[attr-defined]
            raise
        count += 1
        if outcome not in came_to:
            pool.append(data)
        came_to[outcome] = came_to.get(outcome, 0) + 1
    return count, came_to
