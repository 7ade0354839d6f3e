"""MIST's global positions (`img-global-positions-0.txt`).

    file: img_r001_c001.tif; corr: 0.98; position: (0, 0); grid: (0, 0);

Positions are pixels, x first.
"""

from __future__ import annotations

import re

from warpbeam.transforms.storage.images.source import join
from warpbeam.transforms.storage.tiles.rows import Row, number
from warpbeam.transforms.storage.tiles.text_lines import bad_line, lines

FIELD = re.compile(r"\s*(\w+)\s*:\s*([^;]*?)\s*(?:;|$)")
POSITION = re.compile(r"\(([^(),]*),([^(),]*)\)")


def read_mist(path: str, text: str, folder: str) -> list[Row]:
    """One row per line; correlation and grid place are not needed.

    Raises:
        InputError: a line without a file or a position.
    """
    rows = []
    for where, line in lines(path, text):
        fields = {m[1].lower(): m[2] for m in FIELD.finditer(line)}
        place = POSITION.fullmatch(fields.get("position", ""))
        if "file" not in fields or place is None:
            raise bad_line(where, line, "file: name; corr: 0.9; position: (x, y); grid: (c, r);")
        x, y = (number(n, where=where, field="a coordinate") for n in place.groups())
        name = fields["file"]
        rows.append(Row(join(folder, name), name, where, (y, x)))
    return rows
