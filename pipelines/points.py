"""Points in CSV files through the map of a run: columns z, y and x are moved, others are kept."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.errors import InputError

Points = Float[np.ndarray, "n 3"]

_AXES = ("z", "y", "x")


def move_points(
    source: str,
    target: str,
    through: Callable[[Points], Points],
    *,
    units: str,
    overwrite: bool = False,
) -> int:
    """Writes the file again with its points moved; empty where the map is not known, and where a
    row has no point.

    Args:
        source: CSV with columns z, y and x.
        target: where the same rows go, in the same order.
        through: the map; NaN for points that have no place.
        units: of the columns, for whoever gives other ones.
        overwrite: whether a file that is there may be replaced.

    Returns:
        How many points have no place.

    Raises:
        InputError: there is no such file, the columns are not there, or the target is.
    """
    if not overwrite and store.exists(target):
        raise _occupied(target)
    raw = store.read_bytes(source)
    if raw is None:
        raise _no_points(source, units, "no such file")
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"))))
    if rows and not set(_AXES) <= set(rows[0]):
        raise _no_points(source, units, f"columns {', '.join(map(str, rows[0]))}")
    points = np.array([_point(row, f"{source}, row {k}", units) for k, row in enumerate(rows, 1)])
    moved = through(points.reshape(-1, 3))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else list(_AXES), lineterminator="\n")
    writer.writeheader()
    for row, place in zip(rows, moved.tolist(), strict=True):
        known = np.isfinite(place).all()
        writer.writerow(
            row | {a: repr(p) if known else "" for a, p in zip(_AXES, place, strict=True)}
        )
    store.write_bytes(target, out.getvalue().encode())
    return int((~np.isfinite(moved).all(axis=1)).sum())


def _point(row: dict[str, str], where: str, units: str) -> list[float]:
    texts = [(row[axis] or "").strip() for axis in _AXES]
    try:
        return [float(text) if text else np.nan for text in texts]
    except ValueError:
        raise _no_points(where, units, ", ".join(texts)) from None


def _occupied(target: str) -> InputError:
    return InputError(
        "the file for the moved points exists",
        where=target,
        expected="a name that is free",
        got="a file",
        fix="choose another name, or add --overwrite",
    )


def _no_points(source: str, units: str, got: str) -> InputError:
    return InputError(
        "there are no points to move",
        where=source,
        expected=f"a CSV file with columns z, y and x, {units}",
        got=got,
        fix="correct the file",
    )
