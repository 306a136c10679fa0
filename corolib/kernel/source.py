"""Lines of source: which one an instruction is of, and how the one of a call should be.

Nothing here fails because there is no source, and nothing is imported from corolib.
"""

from __future__ import annotations

from _thread import allocate_lock
from itertools import islice
from types import CodeType, FrameType
from typing import Any

CO_COROUTINES = 0x80 | 0x200  # of `async def`, as in `inspect`
_linecache: Any = None
parsing = allocate_lock()  # held while one thread parses
LONGEST = 100  # characters of a line that is quoted

LOOPS = {"as_completed": ("step", "value"), "every": ("tick", "missed")}
"""What gives one wait after the other to a loop: what each is called there, and what it returns."""

BOUNDS = {"move_on_after", "shield", "timeout"}
"""What bounds a block, and refuses a call: `timeout(1, stream.readline())`."""

Position = tuple[int, int, int, int]  # line, last line, column and last column, in bytes of UTF-8


def line_of(code: CodeType, lasti: int) -> int:
    """Return the line of the instruction `lasti`; the first of the code if that has none."""
    lines = (line for start, end, line in code.co_lines() if start <= lasti < end)
    return next(lines, None) or code.co_firstlineno


def lines_of(filename: str) -> list[str]:
    """Return the lines of a file, none if it cannot be had."""
    global _linecache
    try:
        if _linecache is None:
            import linecache as _linecache  # for good: at the end nothing can be imported
        return _linecache.getlines(filename)  # type: ignore[no-any-return]
    except Exception:
        # Out of files, say; or the interpreter ends.
        return []


def tree_of(lines: list[str]) -> Any:
    """Return the syntax tree of some lines, without the warnings that Python has of them."""
    import ast
    import warnings

    text = "\n".join(line.rstrip("\n") for line in lines)
    if not parsing.acquire(blocking=False):
        # Filters of warnings are the process's: two threads would put back each other's.
        return ast.parse(text)
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(text)
    finally:
        parsing.release()


def line_at(filename: str, lineno: int) -> str:
    """Return a line of source, nothing if it cannot be had."""
    lines = lines_of(filename)
    return lines[lineno - 1].strip() if 0 < lineno <= len(lines) else ""


def word_for(code: CodeType) -> str:
    """Return what stands before a call that waits, in this function; `run` outside of any."""
    if code.co_name == "<module>":
        return "run"
    return "await" if code.co_flags & CO_COROUTINES else "yield from"


def corrected_at(code: CodeType, lasti: int, word: str = "") -> str:
    """Return the line of the call that is the instruction `lasti`, with the word in front of the
    call that makes it run; nothing if there is no source.
    """
    position = next(islice(code.co_positions(), lasti // 2, None), (None,) * 4)
    if None in position:
        return ""
    word = word or word_for(code)
    return corrected(lines_of(code.co_filename), position, word)  # type: ignore[arg-type]


def called_at(code: CodeType, lasti: int) -> str:
    """Return the last name of what the call that is the instruction `lasti` calls: `Sleep` of
    `corolib.Sleep(1)`; nothing if there is no source.
    """
    line, _, column, _ = next(islice(code.co_positions(), lasti // 2, None))
    rows = lines_of(code.co_filename)
    if line is None or line > len(rows):
        return ""
    text = rows[line - 1].encode()[column:].decode(errors="replace")
    return text.partition("(")[0].strip().rpartition(".")[2]


def is_given_up(code: CodeType, lasti: int, frame: FrameType | None) -> bool:
    """Return whether what the instruction `lasti` made dies in a frame because something behind it
    in the same call has failed: `f(made(), fails())`; or because that call refuses it.

    Then the frame stands at what has failed, and the call around both was not reached.
    """
    if frame is None or frame.f_code is not code:
        return False
    positions = list(code.co_positions())
    made, now = positions[lasti // 2], positions[frame.f_lasti // 2]
    if None in made or None in now:
        return False
    if _start(now) < _end(made):  # type: ignore[arg-type]
        inside = _start(now) < _start(made) and _end(made) < _end(now)  # type: ignore[arg-type]
        return inside and called_at(code, frame.f_lasti) in BOUNDS
    around = [each for each in positions[frame.f_lasti // 2 :] if None not in each]
    return any(
        _start(each) <= _start(made) and _end(now) <= _end(each)  # type: ignore[arg-type]
        for each in around
    )


def is_next_in(code: CodeType, lasti: int, frame: FrameType | None) -> bool:
    """Return whether a frame stands where the loop of instruction `lasti` stores the next item."""
    if frame is None or frame.f_code is not code or frame.f_lasti < lasti:
        return False
    positions = list(code.co_positions())
    loop, now = positions[lasti // 2], positions[frame.f_lasti // 2]
    target = next((each for each in positions[lasti // 2 :] if each != loop), loop)
    return now[:3:2] == target[:3:2]  # both begin at the name, of which it may be an attribute


def _start(position: Position) -> tuple[int, int]:
    return position[0], position[2]


def _end(position: Position) -> tuple[int, int]:
    return position[1], position[3]


def ticked_at(code: CodeType, lasti: int, result: str) -> str:
    """Return the line that waits for what a loop gives: `missed = yield from tick`; or nothing.

    Args:
        result: what that wait returns.
        lasti: the instruction that takes the next one; what comes after it is the variable's.
    """
    positions = islice(code.co_positions(), lasti // 2, None)
    loop = next(positions, None)
    line, _, column, end = next((each for each in positions if each != loop), (None,) * 4)
    lines = lines_of(code.co_filename)
    if line is None or line > len(lines):
        return ""
    row = lines[line - 1].encode()
    name, rest = row[column:end].decode(), row[end:].decode().split()
    plain = name.isidentifier() and rest[:1] == ["in"]
    return f"{result} = {word_for(code)} {name}" if plain else ""


def loop_over(maker: str, made: str, word: str) -> str:
    """Return the loop over what `as_completed()` or `every()` gives: each is waited for.

    Args:
        made: the call of it, if it is known.
    """
    step, result = LOOPS[maker]
    made = made.strip() if maker in made else f"{maker}(...)"
    return f"for {step} in {made}: {result} = {word} {step}"


def corrected(lines: list[str], position: Position, word: str, text: str = "") -> str:
    """Return the line in which a call stands, with `word` in front of it, if there is one; `text`
    takes the place of the call. Nothing if the line cannot be had.
    """
    line, last, column, end = position
    if not 0 < line <= last <= len(lines):
        return ""
    longer, scope, late = _around(lines, position)
    inside = scope if word == "yield from" else None  # where that cannot stand
    if inside is not None and not _is_gathered(inside, position):
        return _as_loop(inside, position)
    if inside is not None:
        line, last, column, end = _place_of(inside)
    before = lines[line - 1].encode()[:column].decode().lstrip()
    if late is not None and inside is None and word not in ("", "run") and late.lineno == line:
        before = _without_word(lines[line - 1].encode(), late.col_offset, column)
    after = lines[last - 1].encode()[end:].decode().rstrip()
    rows = [row.encode() for row in lines[line - 1 : last]]
    rows[-1] = rows[-1][:end]
    rows[0] = rows[0][column:]
    call = text or " ".join(b" ".join(rows).decode().split())
    if inside is not None:
        call = f"gather(*{call})"
    if word == "run":
        after = after.removeprefix(".run()")  # a call has none: `serve_tcp(echo, host, port).run()`
    call = f"run({call})" if word == "run" else f"{word} {call}".lstrip()
    if longer:
        return call if len(call) <= LONGEST else ""
    right = f"{before}{call}{after}"
    # Alone, or as what is assigned, it needs no parentheses; nor does `await` after `return`.
    head = before.rstrip()
    assigns = head.endswith("=") and not head.endswith(("==", "!=", "<=", ">=", ":="))
    alone = not head or assigns or (head == "return" and word == "await")
    if word not in ("", "run") and (after.partition("#")[0].strip() or not alone):
        right = f"{before}({call}){after}"
    return right if len(right) <= LONGEST else call if len(call) <= LONGEST else ""


def _around(lines: list[str], position: Position) -> tuple[bool, Any, Any]:
    """Return whether the statement of a call goes on in other lines; the comprehension or `lambda`
    around the call; and what has a word in front of it that belongs to the call. The last two are
    None if there is none.
    """
    try:
        import ast

        tree = tree_of(lines)
    except Exception:
        return False, None, None
    longer, scope, late = False, None, None
    for node in ast.walk(tree):
        if not _holds(node, position):
            continue
        if isinstance(node, ast.stmt):  # the inner ones come later
            rest = node.end_lineno if not hasattr(node, "body") else position[1]
            longer = (node.lineno, rest) != position[:2]
        elif hasattr(node, "generators"):
            scope = node if not _holds(node.generators[0].iter, position) else scope
        elif isinstance(node, ast.Lambda):
            scope = node if _holds(node.body, position) else scope
        elif isinstance(node, ast.YieldFrom | ast.Await | ast.Yield):
            made = _made_of(node.value)
            late = node if any(_place_of(each) == position for each in made) else late
    return longer, scope, late


def _made_of(node: Any) -> list[Any]:
    """Return the calls whose results an expression computes its own from, unless it is a call: of
    `f() + x`, and of `f().strip()`, a method of plain values, which do not wait.
    """
    import ast

    match node:
        case ast.BinOp(left=left, right=right):
            parts = [left, right]
        case ast.Compare(left=left, comparators=others):
            parts = [left, *others]
        case ast.BoolOp(values=parts):
            pass
        case ast.UnaryOp(operand=part) | ast.Subscript(value=part):
            parts = [part]
        case ast.Call(func=ast.Attribute(value=part, attr=name)) if _is_plain(name):
            parts = [part]
        case _:
            parts = []
    found = [call for part in parts for call in _made_of(part)]
    return found + [part for part in parts if isinstance(part, ast.Call)]


def _is_plain(name: str) -> bool:
    return name not in ("get", "join") and any(
        hasattr(each, name) for each in (str, bytes, list, dict)
    )


def _without_word(row: bytes, begin: int, column: int) -> str:
    """Return what stands before a column of a line, without the `yield from` that begins there."""
    import re

    left = re.sub(r"^(yield\s+from|yield|await)\s*", "", row[begin:column].decode())
    return f"{row[:begin].decode()}{left}".lstrip()


def _is_gathered(comprehension: Any, position: Position) -> bool:
    """Return whether a list is made of calls that differ, and of nothing else. The same call made
    again and again, `[stream.recv(1) for _ in range(3)]`, is meant one after the other.
    """
    import ast

    item = getattr(comprehension, "elt", None)
    if not isinstance(comprehension, ast.ListComp) or _place_of(item) != position:
        return False
    targets = {each.id for part in comprehension.generators for each in _names_in(part.target)}
    return any(each.id in targets for each in _names_in(item))


def _as_loop(comprehension: Any, position: Position) -> str:
    """Return the loop that waits for a call in a comprehension; nothing if that is not simple, nor
    for a `lambda`.
    """
    import ast

    if isinstance(comprehension, ast.Lambda):
        return ""
    first, *others = comprehension.generators
    calls = (each for each in ast.walk(comprehension) if isinstance(each, ast.Call))
    call = next((each for each in calls if _place_of(each) == position), None)
    if others or first.ifs or call is None:
        return ""
    target, items = ast.unparse(first.target), ast.unparse(first.iter)
    right = f"for {target} in {items}: value = yield from {ast.unparse(call)}"
    return right if len(right) <= LONGEST else ""


def _names_in(node: Any) -> list[Any]:
    import ast

    return [each for each in ast.walk(node) if isinstance(each, ast.Name)]


def _place_of(node: Any) -> Position:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _holds(node: Any, position: Position) -> bool:
    if not hasattr(node, "end_col_offset"):
        return False
    place = _place_of(node)
    return _start(place) <= _start(position) and _end(position) <= _end(place)
