"""Errors that a user can act on."""

from __future__ import annotations


class InputError(ValueError):
    """Something that the user gave is wrong; says so in four parts.

    Args:
        what: what is wrong, one clause.
        where: the file, key or field.
        expected: what would have been right.
        got: what was found.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, where: str, expected: str, got: str, fix: str) -> None:
        self.what, self.where, self.expected, self.got, self.fix = what, where, expected, got, fix
        parts = {"where": where, "expected": expected, "got": got, "to do": fix}
        super().__init__("\n".join([what, *(f"  {k + ':':<10}{v}" for k, v in parts.items())]))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.what, self.where, self.expected, self.got, self.fix))


def _rebuild(what: str, where: str, expected: str, got: str, fix: str) -> InputError:
    return InputError(what, where=where, expected=expected, got=got, fix=fix)
