"""A run that another job builds on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.transforms.storage import store, volume
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.run_folder import RunFolder


def finished_run(
    uri: str, job: str, what: str, needed: Callable[[RunFolder], str]
) -> tuple[RunFolder, dict[str, Any]]:
    """Folder and summary of a run of a job that has drawn its volume.

    Args:
        uri: the folder.
        job: name of the job.
        what: that it made, in words.
        needed: address of its map.

    Raises:
        InputError: there is no such run.
    """
    summary = store.read_json(RunFolder(uri).summary) or {}
    if summary.get("job") == job:
        folder = RunFolder(uri, summary["config"]["volume"]["format"])
        if volume.stored_spec(folder.volume) is not None and store.exists(needed(folder)):
            return folder, summary
    raise InputError(
        f"there is no {what} to apply",
        where=uri,
        expected=f"the folder of a finished run of `warpbeam {job}`",
        got=f"a run of {summary['job']}" if summary.get("job") else "nothing of the kind",
        fix=f"run `warpbeam {job}` first, or correct the path",
    )
