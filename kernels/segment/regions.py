"""Objects as runs: pixels of one label side by side in a row.

Objects cover a few percent of a plate's images, and a run stands for some ten pixels. All
that is measured of shapes is a sum over runs, and grey values are read where objects are:
after the threshold nothing looks at the whole image again, and nothing loops over objects.

Convention: labels are 1 to `count`, numbered by the first pixel of each object in raster
order, which is the order of `skimage.measure.label`; 0 is background.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int, Integer
from scipy import sparse

from warpbeam.kernels.segment.runs import OfRuns, runs_above, runs_of

OfPixels = Int[np.ndarray, "pixels"]


@dataclass(frozen=True)
class Regions:
    """The objects of an image; runs in raster order.

    Attributes:
        shape: yx, of the image.
        row: y of each run.
        left, right: x of its first and of its last pixel.
        label: of its pixels, 1 to `count`.
        count: the largest label.
    """

    shape: tuple[int, int]
    row: OfRuns
    left: OfRuns
    right: OfRuns
    label: OfRuns
    count: int

    @functools.cached_property
    def length(self) -> OfRuns:
        return self.right - self.left + 1

    @functools.cached_property
    def area(self) -> Int[np.ndarray, "count"]:
        """Pixels of labels 1 to `count`."""
        return self.sum(self.length).astype(np.int64)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums of a value per run over labels 1 to `count`, float64."""
        total = np.bincount(self.label, values, minlength=self.count + 1)[1:]
        return total.astype(np.float64)  # of nothing, NumPy's are whole numbers

    @functools.cached_property
    def first(self) -> OfRuns:
        """Where each run begins in lists of pixels."""
        return np.cumsum(self.length) - self.length

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """A value per run as one per pixel."""
        return np.repeat(values, self.length)

    @functools.cached_property
    def column(self) -> OfPixels:
        """x of each pixel."""
        return np.arange(int(self.length.sum())) + self.pixels(self.left - self.first)

    @functools.cached_property
    def index(self) -> OfPixels:
        """Position of each pixel in the flattened image."""
        return self.column + self.pixels(self.row * self.shape[1])

    def image(self) -> Integer[np.ndarray, "y x"]:
        """The labels as an image.

        uint16, or uint32 where there are more than 65535 objects: labels never wrap.
        """
        out = np.zeros(self.shape, np.uint16 if self.count < 1 << 16 else np.uint32)
        out.reshape(-1)[self.index] = self.pixels(self.label.astype(out.dtype))
        return out

    def keep(self, wanted: Bool[np.ndarray, "count"]) -> Regions:
        """The wanted labels (entry k is label k + 1), renumbered without gaps in their order."""
        number = np.zeros(self.count + 1, np.int64)
        number[1:] = np.cumsum(wanted) * wanted
        label = number[self.label]
        kept = label > 0
        return Regions(
            self.shape, self.row[kept], self.left[kept], self.right[kept], label[kept],
            int(np.sum(wanted)),
        )  # fmt: skip


def label_mask(mask: Bool[np.ndarray, "y x"], connectivity: int = 8) -> Regions:
    """The connected pieces of a mask.

    Args:
        mask: what belongs to objects.
        connectivity: 4 (pixels share an edge) or 8 (or a corner).
    """
    return label_pieces(mask, connectivity)[0]


def label_pieces(
    values: Bool[np.ndarray, "y x"] | Integer[np.ndarray, "y x"], connectivity: int = 8
) -> tuple[Regions, np.ndarray]:
    """The connected pieces of equal values other than 0, and the value of each.

    Args:
        values: a mask, or labels of which each may be in several pieces.
        connectivity: 4 (pixels share an edge) or 8 (or a corner).
    """
    row, left, right, value = runs_of(values)
    here, there = runs_above(row, left, right, width=values.shape[1], reach=connectivity // 8)
    same = value[here] == value[there]
    label = connected(here[same], there[same], row.size) + 1
    count = int(label.max(initial=0))
    of_piece = np.zeros(count + 1, value.dtype)
    of_piece[label] = value
    return Regions(_plane(values.shape), row, left, right, label, count), of_piece[1:]


def connected(
    a: Int[np.ndarray, "edges"], b: Int[np.ndarray, "edges"], nodes: int
) -> Int[np.ndarray, "nodes"]:
    """The component of each node, numbered from 0 in the order of their first nodes."""
    order = np.argsort(a, kind="stable")
    start = np.append(0, np.cumsum(np.bincount(a, minlength=nodes)))
    graph = sparse.csr_array((np.ones(a.size), b[order], start), shape=(nodes, nodes))
    count, component = sparse.csgraph.connected_components(graph, directed=False)
    first = np.empty(count, np.int64)
    # Where an entry is written several times the last one stays: from behind, the first node.
    first[component[::-1]] = np.arange(nodes - 1, -1, -1)
    number = np.empty(count, np.int64)
    number[np.argsort(first)] = np.arange(count)
    return number[component]


def regions_of(labels: Integer[np.ndarray, "y x"]) -> Regions:
    """The objects of a label image, which keep their labels; 0 is background."""
    row, left, right, label = runs_of(labels)
    label = label.astype(np.int64)
    return Regions(_plane(labels.shape), row, left, right, label, int(label.max(initial=0)))


def numbered(labels: Integer[np.ndarray, "y x"]) -> Regions:
    """The objects of a label image, numbered anew as the convention has it; 0 is background."""
    regions = regions_of(labels)
    used, first = np.unique(regions.label, return_index=True)
    number = np.zeros(regions.count + 1, np.int64)
    number[used[np.argsort(first)]] = np.arange(1, used.size + 1)
    return replace(regions, label=number[regions.label], count=used.size)


def _plane(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape
    return height, width
