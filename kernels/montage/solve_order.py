"""Tiles and correspondences in an order that depends on where they are, not how they came.

Sums then add the same numbers in the same order whatever the input's order was, so the
solution is the same to the last bit. Neighbours also lie close in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Correspondences:
    """Points seen in two tiles, one row each; several may belong to one link.

    Attributes:
        tile_a, tile_b: `(m,)` tile numbers.
        point_a, point_b: `(m, d)` the same place in the voxels of either tile, zyx or yx. Where
            only a shift is known, any two points that differ by it will do.
        information: `(m, d, d)` inverse covariances or `(m,)` inverse variances, px^-2. Only
            ratios count: the common factor is estimated from the residuals.
        link: `(m,)` numbers from 0 of the links, which are trusted or rejected as a whole;
            without it each correspondence is its own link.

    Raises:
        ValueError: arrays of different lengths, a number that is not finite, a negative
            variance, or a tile joined to itself.
    """

    tile_a: Int[np.ndarray, " m"]
    tile_b: Int[np.ndarray, " m"]
    point_a: Float[np.ndarray, "m d"]
    point_b: Float[np.ndarray, "m d"]
    information: Float[np.ndarray, "m d d"] | Float[np.ndarray, " m"]
    link: Int[np.ndarray, " m"] | None = None

    def __post_init__(self) -> None:
        rows = {name: len(value) for name, value in vars(self).items() if value is not None}
        if len(set(rows.values())) > 1:
            raise ValueError(f"correspondences need arrays of one length, got {rows}")
        for name in ("point_a", "point_b", "information"):
            values = getattr(self, name)
            bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
            if len(bad):
                raise ValueError(f"{name} of correspondence {bad[0]} is not finite")
        negative = np.flatnonzero((np.diagonal(self.matrices, axis1=1, axis2=2) < 0).any(axis=1))
        if len(negative):
            raise ValueError(f"information of correspondence {negative[0]} is negative")
        same = np.flatnonzero(self.tile_a == self.tile_b)
        if len(same):
            raise ValueError(
                f"correspondence {same[0]} joins tile {self.tile_a[same[0]]} to itself"
            )
        if self.links.min(initial=0) < 0:
            raise ValueError(f"links are numbered from 0, got link number {self.links.min()}")

    @property
    def matrices(self) -> Float[np.ndarray, "m d d"]:
        """The information as matrices."""
        if self.information.ndim == 3:
            return self.information
        return self.information[:, None, None] * np.eye(self.point_a.shape[1])

    @property
    def links(self) -> Int[np.ndarray, " m"]:
        """The link of each correspondence."""
        return np.arange(len(self.tile_a)) if self.link is None else self.link


def spatial_order(stage: Float[np.ndarray, "n d1 d1"]) -> Int[np.ndarray, " n"]:
    """Tiles by stage position: first axis first; tiles at one place as they came."""
    return np.lexsort(stage[:, -2::-1, -1].T)


def arranged(
    links: Correspondences, tile_order: Int[np.ndarray, " n"]
) -> tuple[Correspondences, Int[np.ndarray, " m"]]:
    """The correspondences with tiles renumbered, `a < b`, sorted; and which row came from where.

    Links are renumbered without gaps, in the order of their old numbers.
    """
    number = np.empty_like(tile_order)
    number[tile_order] = np.arange(len(tile_order))
    a, b = number[links.tile_a], number[links.tile_b]
    swapped = (a > b)[:, None]
    at_a = np.where(swapped, links.point_b, links.point_a)
    at_b = np.where(swapped, links.point_a, links.point_b)
    a, b = np.minimum(a, b), np.maximum(a, b)
    pair = a * len(tile_order) + b
    order = np.argsort(pair, kind="stable")
    if (np.diff(pair[order]) == 0).any():
        order = np.lexsort((*links.matrices.reshape(len(a), -1).T, *at_b.T, *at_a.T, pair))
    link = None
    if links.link is not None:
        link = np.unique(links.link[order], return_inverse=True)[1]
    rows = (a[order], b[order], at_a[order], at_b[order], links.matrices[order])
    return Correspondences(*rows, link=link), order
