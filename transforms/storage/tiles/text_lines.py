"""Lines of a small text file, with their place for messages."""

from __future__ import annotations

from collections.abc import Iterator

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images.source import open_binary


def read_text(path: str) -> str:
    """The text of a UTF-8 file (with or without a byte order mark).

    Raises:
        InputError: no such file, or not text.
    """
    try:
        with open_binary(path) as stream:
            return stream.read().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise InputError(
            "a file does not exist",
            where=path,
            expected="a text file",
            got="no such file",
            fix="correct the path",
        ) from cause
    except UnicodeDecodeError as cause:
        raise InputError(
            "a file is not text",
            where=path,
            expected="UTF-8 text",
            got=str(cause),
            fix="save it as UTF-8, or give another file",
        ) from cause


def lines(path: str, text: str) -> Iterator[tuple[str, str]]:
    """Each line that is neither empty nor a comment, with `path, line N`."""
    for number, line in enumerate(text.splitlines(), start=1):
        if (stripped := line.strip()) and not stripped.startswith("#"):
            yield f"{path}, line {number}", stripped


def bad_line(where: str, line: str, expected: str) -> InputError:
    return InputError(
        "a line of the list cannot be read",
        where=where,
        expected=expected,
        got=line[:200],
        fix="correct the line",
    )
