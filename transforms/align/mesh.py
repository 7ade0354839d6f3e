"""Cleaned flow -> a mesh per section, block by block along z: see `blocks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from warpbeam.kernels.maps.coordinate_map import on_lattice
from warpbeam.kernels.maps.invert import invert
from warpbeam.kernels.mesh.chain import Section, solve_chain
from warpbeam.transforms.align.blocks import MeshSettings, beginning, block_units
from warpbeam.transforms.align.cut import load_cuts
from warpbeam.transforms.align.frame import Frame, chained_uri, clean_uri, load_frame, mesh_uri
from warpbeam.transforms.align.mesh_store import Field, write_mesh
from warpbeam.transforms.align.starts import Starts
from warpbeam.transforms.keys import RunKey
from warpbeam.transforms.stage import Unit
from warpbeam.transforms.storage import fields
from warpbeam.transforms.storage.ledger import Ledger, Record
from warpbeam.transforms.storage.run_folder import RunFolder


def list_chains(
    run: RunFolder, cleaned: Ledger, starts: Ledger, settings: MeshSettings, turn: int
) -> Iterator[Unit]:
    """A unit per block; in later turns only those whose start was not exact before.

    Payload: as of `blocks.block_units`, the number of the block, and a fingerprint of the
    starts.
    """
    marks = starts.fingerprint()
    for number, (key, payload) in enumerate(block_units(run, cleaned, settings)):
        if turn == 0 or number > turn:
            yield key, [*payload, number, marks]


class _Chains:
    """Solves blocks from the meshes of their first sections."""

    def __init__(self, run: RunFolder, settings: MeshSettings) -> None:
        self._run, self._settings = run, settings

    def _solved(
        self, frame: Frame, payload: Any, starts: Mapping[int, Field]
    ) -> dict[int, Section]:
        _, sections, skipped, *_ = payload
        cuts = load_cuts(self._run, frame, sections)
        return solve_chain(
            sections,
            self._flows(frame, sections),
            self._settings.elasticity(frame),
            self._settings.chain,
            active={section: ~cut for section, cut in cuts.items()},
            starts=starts,
            skipped=skipped,
        )

    def _flows(self, frame: Frame, sections: Sequence[int]) -> dict[tuple[int, int], Field]:
        stored = fields.load(clean_uri(self._run))
        reaches = (*frame.settings.gaps, *frame.settings.bridges)
        inside, flows = set(sections), {}
        for section in sections:
            nodes = frame.nodes(frame.z(section), (len(reaches), 2))
            vectors = stored.read(nodes)[:, :, 0].astype(np.float64)
            for reach, flow in zip(reaches, vectors, strict=True):
                if section - reach in inside and np.isfinite(flow[0]).any():
                    flows[section, section - reach] = flow
        return flows | self._back(frame, flows, sections[0])

    @staticmethod
    def _back(
        frame: Frame, flows: Mapping[tuple[int, int], Field], first: int
    ) -> dict[tuple[int, int], Field]:
        """The flows of the sections before the first to later ones."""
        return {
            (before, later): invert(on_lattice(flow, frame.lattice)).u
            for (later, before), flow in flows.items()
            if before < first
        }


class RelaxBlock(_Chains):
    """Work of the stage `mesh`: the chain of one block, its first section at rest.

    Writes the meshes of its own sections, with what pulls at their nodes.
    """

    def __call__(self, key: RunKey, payload: Any) -> Record:
        frame = load_frame(self._run)
        solved = self._solved(frame, payload, {})
        target = fields.load(mesh_uri(self._run))
        written = sum(write_mesh(target, frame, section, solved[section]) for section in payload[3])
        return {"bytes_written": written, "own": payload[3]}


class ChainBlock(_Chains):
    """Work of the stage `chain`: the chain of one block from its start of this turn.

    Writes the meshes of its own sections, with what pulls at their nodes.
    """

    def __init__(self, run: RunFolder, settings: MeshSettings, turn: int) -> None:
        super().__init__(run, settings)
        self._turn = turn

    def __call__(self, key: RunKey, payload: Any) -> Record:
        *_, own, number, _marks = payload
        frame = load_frame(self._run)
        begin, starts = beginning(frame, payload[1], own), Starts(self._run, frame, self._turn)
        given = {section: starts.read(number, index) for index, section in enumerate(begin)}
        solved = self._solved(frame, payload, given)
        target, written, rows = fields.load(chained_uri(self._run)), 0, []
        for section in own:
            found = solved[section]
            written += write_mesh(target, frame, section, found)
            rows.append(
                {
                    "section": section,
                    "status": found.status.value,
                    "references": list(found.references),
                    "residual_px": None if np.isnan(found.scale_px) else found.scale_px,
                    "known": found.known,
                }
            )
        return {"bytes_written": written, "sections": rows}
