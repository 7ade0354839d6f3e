"""A run that another job builds on."""

from __future__ import annotations

from collections.abc import Callable

from warpbeam.transforms.align.output import drawn_nodes
from warpbeam.transforms.align.section_maps import inverse_uri, load_inverse
from warpbeam.transforms.storage import store, volume
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Ledger, digest
from warpbeam.transforms.storage.run_folder import RunFolder


def finished_run(
    uri: str, job: str, what: str, needed: Callable[[RunFolder], str], stage: str
) -> tuple[RunFolder, str]:
    """Folder of a run of a job that has drawn its volume, and a mark of its maps.

    Args:
        uri: the folder.
        job: name of the job.
        what: that it made, in words.
        needed: address of its map.
        stage: that made it.

    Raises:
        InputError: there is no such run.
    """
    summary = store.read_json(RunFolder(uri).summary) or {}
    if summary.get("job") == job:
        folder = RunFolder(uri, summary["config"]["volume"]["format"])
        if volume.stored_spec(folder.volume) is not None and store.exists(needed(folder)):
            made = Ledger(uri, stage, summary["stages"][stage])
            return folder, digest([summary["inputs"], made.config_hash, made.fingerprint()])
    raise InputError(
        f"there is no finished {what}",
        where=uri,
        expected=f"the folder of a finished run of `warpbeam {job}`",
        got=f"a run of {summary['job']}" if summary.get("job") else "nothing of the kind",
        fix=f"run `warpbeam {job}` first, or correct the path",
    )


def finished_alignment(uri: str) -> tuple[RunFolder, str]:
    """Folder of a finished run of `align`, and a mark of its maps.

    Raises:
        InputError: there is no such run, or it is one of an older version.
    """
    folder, mark = finished_run(uri, "align", "alignment", inverse_uri, "invert")
    if load_inverse(folder).lattice != drawn_nodes(folder):
        raise InputError(
            "the maps of this alignment are those of an older version",
            where=uri,
            expected="maps from the aligned frame",
            got="maps from the voxels of the volume",
            fix="run `warpbeam align` on it again: it keeps what it can",
        )
    return folder, mark
