"""Chains of blocks -> one chain, as if all sections had been solved one after the other.

    block 0   . -- . -- . -- . -- x              x - a is what block 1 was off where it began; it
    block 1                       a -- . -- .    fades along block 1 (`kernels.mesh.decay`), and
    block 2                                 b    what is left of it counts where block 2 begins

This is the scheme of Parareal (Lions, Maday and Turinici 2001) with fading for its coarse solver:
with every turn one more block is exact, and the others come closer. What the last turn leaves is
added to the meshes as it fades.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from warpbeam.transforms.align.blocks import MeshSettings
from warpbeam.transforms.align.frame import Frame, chained_uri, joined_uri, load_frame
from warpbeam.transforms.align.mesh_store import Field, read_mesh
from warpbeam.transforms.align.starts import Starts, decay_of
from warpbeam.transforms.keys import RunKey
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.ledger import Key, Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder


class ComposeAgain:
    """Work of the stage `agree`: where each block should have begun, for the next turn."""

    def __init__(self, run: RunFolder, settings: MeshSettings, turn: int) -> None:
        self._run, self._settings, self._turn = run, settings, turn

    def __call__(self, key: Key, payload: Any) -> Record:
        _, blocks = payload
        frame, chained = load_frame(self._run), fields.load(chained_uri(self._run))
        old, new = (Starts(self._run, frame, self._turn + k) for k in (0, 1))
        new.create(len(blocks))
        most = 0.0
        for number in range(1, len(blocks)):
            (first, own, _), (_, _, begin) = blocks[number - 1], blocks[number]
            there = [read_mesh(chained, frame, section) for section in begin]
            off = new.read(number - 1) - old.read(number - 1)
            if off.any():
                decay = decay_of(chained, frame, self._settings, own)
                faded = list(decay.part(off, slice(begin[0] - first, begin[-1] - first + 1)))
                there = [m + faded[s - begin[0]] for s, m in zip(begin, there, strict=True)]
            new.write(number, there)
            most = max(most, float(np.abs(there[0] - old.read(number)).max()))
        return {"blocks": len(blocks), "most_px": most}


def list_joins(chains: Sequence[Ledger], agreement: Ledger) -> Iterator[Unit]:
    """A unit per block.

    Payload: a fingerprint of the agreement, that of its chain, its number, and the records of its
    own sections.
    """
    agreed, marks = agreement.fingerprint(), dict[tuple[Any, ...], str]()
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for ledger in chains:
        marks |= ledger.marks()
        rows |= {key: record["sections"] for key, record in ledger.records()}
    for number, key in enumerate(sorted(rows)):
        yield RunKey(*key), [agreed, marks[key], number, rows[key]]


class JoinBlock:
    """Work of the stage `join`: the meshes of a block in the frame of the first one."""

    def __init__(self, run: RunFolder, settings: MeshSettings, turns: int) -> None:
        self._run, self._settings, self._turns = run, settings, turns

    def __call__(self, key: RunKey, payload: Any) -> Record:
        *_, number, rows = payload
        frame, target = load_frame(self._run), fields.load(joined_uri(self._run))
        chained = fields.load(chained_uri(self._run))
        off = self._off(chained, frame, key, number, [row["section"] for row in rows])
        written, joined = 0, []
        for row, left in zip(rows, off, strict=True):
            offsets = read_mesh(chained, frame, row["section"]) + left
            nodes = frame.nodes(frame.z(row["section"]), (2,))
            written += target.write(nodes, offsets[:, None])
            shift = offsets.reshape(2, -1).mean(axis=1).tolist()
            joined.append({**row, "shift": shift})
        return {"bytes_written": written, "sections": joined}

    def _off(
        self,
        chained: fields.FieldArray,
        frame: Frame,
        key: RunKey,
        number: int,
        own: Sequence[int],
    ) -> Iterator[Field]:
        """What each of the own sections is off, in their order."""
        last, wanted = (Starts(self._run, frame, self._turns - k).read(number) for k in (1, 0))
        off = wanted - last
        if not off.any():
            yield from (off for _ in own)
            return
        decay = decay_of(chained, frame, self._settings, own)
        along = range(key.first, own[-1] + 1)
        for section, left in zip(along, decay.follow(off), strict=False):
            if section in own:
                yield left
