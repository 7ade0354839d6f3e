"""Labels of a volume, block by block: local labels, and which of two blocks are one object.

A block is labelled alone. Its labels become global as `block << 32 | local`, where `block` is
the block's number: no count of other blocks is needed, and a retry gives the same ids. Objects
that cross from one block into another are found from the blocks' outermost layers:

    block A | block B        A's last plane and B's first plane: voxels that touch across the
      . a a | b b .          cut are one object. With 18 or 26 neighbours blocks that share an
      . . a | . b b          edge or a corner only touch too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Bool, Integer, UInt64
from scipy import ndimage

from warpbeam.kernels.geometry.box import Box

Connectivity = Literal[6, 18, 26]
Step = tuple[int, int, int]
Labels = Integer[np.ndarray, "_ _ _"]
Edges = UInt64[np.ndarray, "_ 2"]

# Neighbours differ along so many axes at most.
_RANK: dict[int, int] = {6: 1, 18: 2, 26: 3}


def label_block(
    mask: Bool[np.ndarray, "z y x"], connectivity: Connectivity
) -> Integer[np.ndarray, "z y x"]:
    """The connected pieces of one block, numbered from 1, uint32."""
    structure = ndimage.generate_binary_structure(3, _RANK[connectivity])
    labels = np.empty(mask.shape, np.uint32)
    ndimage.label(mask, structure, labels)
    return labels


def global_ids(labels: Labels, block: int) -> UInt64[np.ndarray, "_ _ _"]:
    """`block << 32 | local` for objects, 0 for background."""
    return np.where(labels > 0, _global(labels, block), np.uint64(0))


def _global(labels: np.ndarray, block: int) -> np.ndarray:
    return np.uint64(block << 32) | labels.astype(np.uint64)


def neighbour_steps(connectivity: Connectivity) -> list[Step]:
    """Steps from a block to those that come after it and may share an object with it.

    Each pair of neighbours once: 3 steps across faces, 6 across edges, 4 across corners.
    """
    rank = _RANK[connectivity]
    steps = itertools.product((-1, 0, 1), repeat=3)
    ahead = ((z, y, x) for z, y, x in steps if (z, y, x) > (0, 0, 0))
    return [step for step in ahead if sum(map(abs, step)) <= rank]


def boundary(labels: Labels, step: Step) -> Labels:
    """The layer of a block that lies towards a neighbour: a plane, a line or a voxel."""
    index = {1: slice(-1, None), 0: slice(None), -1: slice(0, 1)}
    return labels[tuple(index[s] for s in step)]


def opposite(step: Step) -> Step:
    """The same cut seen from the neighbour."""
    z, y, x = step
    return -z, -y, -x


def touching(here: Labels, there: Labels, step: Step, connectivity: Connectivity) -> np.ndarray:
    """Pairs of labels that touch across a cut, each once.

    Args:
        here: `boundary(block, step)`.
        there: `boundary(neighbour, opposite(step))`, of the same shape.
        step: from the block to the neighbour.
        connectivity: 6, 18 or 26.

    Returns:
        `[pairs, 2]`, labels of the block and of its neighbour.

    Raises:
        ValueError: the layers have different shapes.
    """
    if here.shape != there.shape:
        raise ValueError(f"layers {here.shape} and {there.shape} do not face one another")
    found = []
    for a, b in _shifted(step, _RANK[connectivity]):
        one, other = here[a], there[b]
        both = (one > 0) & (other > 0)
        found.append(np.stack([one[both], other[both]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _shifted(step: Step, rank: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Windows of the two layers whose voxels are neighbours of one another."""
    spare = rank - sum(map(abs, step))
    free = [(-1, 0, 1) if s == 0 else (0,) for s in step]
    for shift in itertools.product(*free):
        if sum(map(abs, shift)) <= spare:
            yield (
                tuple(slice(max(0, -d), None if d <= 0 else -d) for d in shift),
                tuple(slice(max(0, d), None if d >= 0 else d) for d in shift),
            )


def boundary_box(box: Box, step: Step) -> Box:
    """Where `boundary` of a block lies that covers `box`."""
    rows = list(zip(step, box.start, box.stop, strict=True))
    return Box(
        tuple(stop - 1 if s > 0 else start for s, start, stop in rows),
        tuple(start + 1 if s < 0 else stop for s, start, stop in rows),
    )


def edges_between(
    here: Labels,
    there: Labels,
    blocks: tuple[int, int],
    step: Step,
    connectivity: Connectivity,
) -> Edges:
    """`touching`, with global ids of the two blocks."""
    return as_edges(touching(here, there, step, connectivity), blocks)


def as_edges(pairs: np.ndarray, blocks: tuple[int, int]) -> Edges:
    """Pairs of labels of two blocks as pairs of global ids."""
    return np.stack([_global(pairs[:, k], block) for k, block in enumerate(blocks)], axis=1)


def relabel(
    labels: Labels,
    block: int,
    ids: UInt64[np.ndarray, "objects"],
    roots: UInt64[np.ndarray, "objects"],
) -> UInt64[np.ndarray, "_ _ _"]:
    """A block's labels as ids of whole objects.

    Args:
        labels: local.
        block: its number.
        ids: global ids, some of this block among them.
        roots: what those become; an id that is not listed stays as it is, 0 is taken out.
    """
    table = _global(np.arange(int(labels.max(initial=0)) + 1), block)
    table[0] = 0
    mine = (ids >> np.uint64(32)) == block
    table[(ids[mine] & np.uint64(0xFFFFFFFF)).astype(np.int64)] = roots[mine]
    return table[labels]
