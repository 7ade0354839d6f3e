"""A last look at every chunk: what is left of the displacement, and how alike the volumes are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from warpbeam.kernels.geometry.box import Box
from warpbeam.kernels.maps.interpolate import offsets_at
from warpbeam.kernels.maps.irregular import jacobian
from warpbeam.transforms.keys import NodesKey
from warpbeam.transforms.reach import nodes_around
from warpbeam.transforms.register.chunks import MatchChunk, Seen, load_field
from warpbeam.transforms.register.frame import (
    forward_uri,
    held_out_uri,
    inverse_uri,
    matches_uri,
)
from warpbeam.transforms.storage import displacements, fields
from warpbeam.transforms.storage.ledger import Record

Values = Float[np.ndarray, "channel *nodes"]


class JudgeChunk(MatchChunk):
    """Work of the stage `quality`: one chunk through the final map.

    `left` is what a match there would still move, shortest edges of a fixed voxel; nodes with a
    tenth of the usual information are no witnesses.
    """

    def __call__(self, key: NodesKey, payload: Any) -> Record:
        frame, nodes = self._frame, self._frame.blocks.box(key.block)
        seen = self._seen(key.section, nodes)
        found = self._matched(key.section, seen, nodes)
        inside = Box(nodes.start, tuple(b + 1 for b in nodes.stop))
        folds = jacobian(load_field(self._run, frame, frame.last, inside))
        return {
            "bytes_read": seen.bytes_read if seen else 0,
            "start_voxel": [s * b for s, b in zip(frame.lattice.stride, nodes.start, strict=True)],
            "left_out": seen is None,
            **witnesses(found.astype(np.float64)),
            "ncc_before": self._ncc_before(nodes),
            "ncc_ceiling": self._ceiling(key.section, seen),
            "held_out_px": self._held_out(nodes),
            "jacobian_least": float(folds.min()) if folds.size else 1.0,
            "jacobian_most": float(folds.max()) if folds.size else 1.0,
            "inverse_error_px": self._inverse_error(nodes),
        }

    def _inverse_error(self, nodes: Box) -> float | None:
        """95th percentile of how far the stored maps bring the nodes back beside where they
        were, fixed voxels; None where they leave the moving volume."""
        there = displacements.load(forward_uri(self._run)).read(nodes=nodes)
        reached, stored = there.absolute, displacements.load(inverse_uri(self._run))
        ends = reached.reshape(3, -1)
        low, high = np.floor(ends.min(axis=1)), np.ceil(ends.max(axis=1)) + 1
        box = Box(tuple(low.astype(int).tolist()), tuple(high.astype(int).tolist()))
        around = nodes_around(stored.lattice, box)
        if not around:
            return None
        back = offsets_at(stored.read(nodes=around), reached.astype(np.float64)) + there.u
        apart = np.linalg.norm(back[:, np.isfinite(back[0])], axis=0)
        return float(np.quantile(apart, 0.95)) if apart.size else None

    def _ceiling(self, number: int, seen: Seen | None) -> float | None:
        """What the correlation could be at most, for the noise of both volumes."""
        from warpbeam.kernels.register.ceiling import ceiling

        if seen is None:
            return None
        found = ceiling(seen.fixed, seen.moving, self._frame.given(number).window)
        return found if math.isfinite(found) else None

    def _held_out(self, nodes: Box) -> float | None:
        """How far matches are from a field that was solved without them; None where none of
        these nodes was left out, or nothing was solved."""
        if not self._frame.passes:
            return None
        return _median(fields.load(held_out_uri(self._run)).read(nodes))

    def _ncc_before(self, nodes: Box) -> float | None:
        """Of the first pass that did not search; None where there is none."""
        first = next((i for i, p in enumerate(self._frame.passes) if not p.search), None)
        if first is None:
            return None
        box = Box((9, *nodes.start), (10, *nodes.stop))
        return _median(fields.load(matches_uri(self._run, first)).read(box)[0])


def witnesses(values: Values) -> dict[str, Any]:
    """What the nodes of a chunk that see enough say: share, what is left, and correlation."""
    information = values[[3, 6, 8]].sum(axis=0)
    known = np.isfinite(values[0]) & (information > 0)
    if known.any():
        known &= information >= 0.1 * np.quantile(information[known], 0.9)
    left = np.linalg.norm(values[:3, known], axis=0)
    return {
        "nodes": int(known.size),
        "known": float(known.mean()),
        "left_median_px": float(np.median(left)) if left.size else None,
        "left_p95_px": float(np.quantile(left, 0.95)) if left.size else None,
        "ncc": _median(values[9, known]),
    }


def _median(values: Float[np.ndarray, "..."]) -> float | None:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None
