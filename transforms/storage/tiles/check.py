"""Looks at every file of a list before work starts, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.images import ImageInfo, ImageRef, probe
from warpbeam.transforms.storage.tiles.model import THREADS, Tile

T = TypeVar("T")
R = TypeVar("R")


def check_tiles(tiles: Iterable[Tile]) -> None:
    """Sees that the images and masks of tiles are there, complete and as the tiles say.

    Raises:
        InputError: the first problem in the order of the tiles, with the number of others.
    """
    run_all(_check_tile, list(tiles))


def probe_all(refs: Sequence[ImageRef]) -> list[ImageInfo]:
    """`probe` of many images.

    Raises:
        InputError: the first problem in the order of `refs`, with the number of others.
    """
    distinct = list(dict.fromkeys(refs))
    infos = dict(zip(distinct, run_all(probe, distinct), strict=True))
    return [infos[ref] for ref in refs]


def check_alike(refs: Sequence[ImageRef], infos: Sequence[ImageInfo]) -> None:
    """One dtype, and all 2-D or all 3-D.

    Raises:
        InputError: naming the first image that differs from the first of all.
    """
    first = infos[0]
    facts: tuple[tuple[str, str, Callable[[ImageInfo], object]], ...] = (
        ("images have two dtypes", "dtype", lambda i: i.dtype),
        ("2-D images are mixed with 3-D ones", "number of axes", lambda i: len(i.shape)),
    )
    for what, name, fact in facts:
        odd = [ref for ref, info in zip(refs, infos, strict=True) if fact(info) != fact(first)]
        if odd:
            got = fact(infos[refs.index(odd[0])])
            raise InputError(
                f"{what}{_more(len(odd) - 1, 'differ as well')}",
                where=odd[0].file,
                expected=f"{name} {fact(first)}, as {refs[0].file} has",
                got=f"{name} {got}",
                fix="convert the images to one kind, or split the list",
            )


def run_all(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The results in order.

    Raises:
        InputError: the first in order that any item raised; it counts the others.
    """

    def attempt(item: T) -> R | InputError:
        try:
            return work(item)
        except InputError as problem:
            return problem

    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(pool.map(attempt, items))
    problems = [o for o in outcomes if isinstance(o, InputError)]
    if problems:
        raise _counted(problems[0], len(problems) - 1)
    return [o for o in outcomes if not isinstance(o, InputError)]


def _check_tile(tile: Tile) -> None:
    for ref in tile.images:
        info = probe(ref)
        if (info.shape, info.dtype) != (tile.shape, tile.dtype):
            raise InputError(
                "an image is not what the tile list was made from",
                where=ref.file,
                expected=f"shape {tile.shape}, {tile.dtype}",
                got=f"shape {info.shape}, {info.dtype}",
                fix="put the file back, or read the tile list again",
            )
    if tile.mask is not None:
        check_mask(tile.mask, tile.shape)


def check_mask(mask: ImageRef, shape: tuple[int, ...]) -> None:
    """Sees that a mask is there and has the shape of its tile."""
    got = probe(mask).shape
    if got != shape:
        raise InputError(
            "a mask has another shape than its tile",
            where=mask.file,
            expected=f"shape {shape}",
            got=f"shape {got}",
            fix="correct the mask",
        )


def _counted(problem: InputError, others: int) -> InputError:
    what = f"{problem.what}{_more(others, 'have problems too')}"
    return type(problem)(
        what, where=problem.where, expected=problem.expected, got=problem.got, fix=problem.fix
    )


def _more(count: int, verb: str) -> str:
    return f" ({count} more {verb})" if count else ""
