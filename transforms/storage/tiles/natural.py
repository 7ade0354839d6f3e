"""The order in which people count names: tile_2 before tile_10."""

from __future__ import annotations

import re


def natural(name: str) -> tuple[tuple[str, int, str], ...]:
    """A sort key: digits count as numbers; the text itself decides between `01` and `1`."""
    parts = re.split(r"(\d+)", name)
    return (*(("", int(p), "") if p.isdigit() else (p, 0, "") for p in parts), ("", 0, name))
