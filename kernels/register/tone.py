"""The grey values of one volume as those of another: a curve that never falls.

Two looks at one tissue differ in more than gain and offset: detectors saturate, dyes bleach,
microscopes store logarithms. Windows that compare them allow for a gain and an offset of their
own, and take what is left for displacement, most where they see one side of a thing alone, as at a
border. The curve takes equal shares of the voxels to equal grey values (histogram matching, see
Gonzalez and Woods, Digital Image Processing, section 3.3).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

Values = Float32[np.ndarray, "*shape"]

_SHARES = np.concatenate([[0.001, 0.003, 0.01], np.linspace(0.02, 0.98, 49), [0.99, 0.997, 0.999]])
_LEAST_VALUES = 1000
# A curve is looked up in so many equal cells: to look for its knots takes five times as long.
_CELLS = 1 << 15


class Tone(NamedTuple):
    """A curve through knots, straight between them and on beyond the last ones.

    Attributes:
        at: grey values, ascending, at least two; without any the curve changes nothing.
        to: what becomes of them, never falling.
        slope: beyond the knots.
    """

    at: tuple[float, ...] = ()
    to: tuple[float, ...] = ()
    slope: float = 1.0

    def __call__(self, values: Values) -> Values:
        """The values along the curve; NaN stays."""
        if not self.at:
            return values
        low, size = self.at[0], (self.at[-1] - self.at[0]) / _CELLS
        ends = np.interp(low + size * np.arange(_CELLS + 1), self.at, self.to)
        # one more cell at either end is that of all that lies beyond
        rise = np.concatenate([[self.slope * size], np.diff(ends), [self.slope * size]])
        first = np.concatenate([ends[:1] - rise[0], ends])
        at = (values - np.float32(low)) * np.float32(1 / size) + np.float32(1)
        cell = np.fmin(np.fmax(at, 0), _CELLS + 1).astype(np.int32)  # NaN: 0, and NaN by its share
        at -= cell
        at *= rise.astype(np.float32)[cell]
        at += first.astype(np.float32)[cell]
        return at


def tone_between(fixed: Float[np.ndarray, "n"], moving: Float[np.ndarray, "m"]) -> Tone:
    """The curve that gives `moving` the histogram of `fixed`; values that show the same places.

    What is not finite is left out. Too few values, or a single one, give no curve.
    """
    known = [values[np.isfinite(values)] for values in (fixed, moving)]
    if min(values.size for values in known) < _LEAST_VALUES:
        return Tone()
    to, at = (np.quantile(values.astype(np.float64), _SHARES) for values in known)
    # where many voxels have one grey value, its shares have one mean
    knots, group = np.unique(at, return_inverse=True)
    means = np.bincount(group, to) / np.bincount(group)
    if knots.size < 2 or means[0] == means[-1]:
        return Tone()
    slope = (means[-1] - means[0]) / (knots[-1] - knots[0])
    return Tone(tuple(knots.tolist()), tuple(means.tolist()), float(slope))
