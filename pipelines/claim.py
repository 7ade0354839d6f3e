"""The output folder of a run: whose it is, and how it becomes another run's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.transforms.storage import store, volume
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.run_folder import RunFolder

# A job by its name, its settings, and a fingerprint of what it works on.
Owner = dict[str, Any]


def claim(
    run: RunFolder,
    mine: Owner,
    continues: Callable[[Owner], bool],
    discard: Callable[[Owner], None],
    *,
    overwrite: bool,
) -> None:
    """Makes a folder this run's own, or finds that it is already.

    Args:
        run: the folder.
        mine: what the run is.
        continues: whether it goes on with a run that was something else.
        discard: takes out of other places what a run that is overwritten stored there.
        overwrite: whether another run may be replaced.

    Raises:
        InputError: the folder holds another run, or other files.
    """
    place = store.local_path(run.uri)
    if place is not None and place.is_file():
        raise occupied(run.uri, None, mine, got="a file")
    theirs = store.read_json(run.owner)
    if theirs == mine:
        return
    continued = theirs is not None and continues(theirs)
    if theirs is not None and overwrite and not continued:
        _disown(run)
        discard(theirs)
        _clear(run)
    elif not continued and store.list_keys(run.uri.rstrip("/") + "/"):
        raise occupied(run.uri, theirs, mine)
    # First of all, so that a run that is stopped at any instant can be continued.
    try:
        store.write_json(run.owner, mine)
    except (ValueError, OSError) as error:
        raise _unwritable(run.uri, error) from None


def _disown(run: RunFolder) -> None:
    """A note in place of a run's owner: what is deleted half way is never continued as that run,
    nor taken for a stranger's files."""
    store.write_json(run.owner, {"job": "none: it was being overwritten"})


def _clear(run: RunFolder) -> None:
    """Deletes another run; the note goes last."""
    store.delete_others(run.uri, run.owner.removeprefix(run.uri.rstrip("/") + "/"))
    volume.forget()


def _unwritable(output: str, error: Exception) -> InputError:
    return InputError(
        "the output cannot be written",
        where=output,
        expected="a folder or a prefix of a bucket in which files can be made",
        got=str(error).splitlines()[0],
        fix="choose another output, or get the permission to write",
    )


def occupied(
    output: str, theirs: Any, mine: dict[str, Any], got: str = "files that warpbeam did not write"
) -> InputError:
    """The error for a folder that holds another run, `theirs`, or other files."""
    fix = "choose another output, or move these files away"
    if theirs is not None:
        got = f"a run with {_first_difference(theirs, mine)}"
        fix = "choose another output, use the same settings to continue it, or add --overwrite"
    return InputError(
        "the output exists",
        where=output,
        expected="an empty place, or a run of the same job with the same settings and tiles",
        got=got,
        fix=fix,
    )


def _first_difference(theirs: Any, mine: Any, name: str = "") -> str:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for key in {**mine, **theirs}:
            if theirs.get(key) != mine.get(key):
                return _first_difference(theirs.get(key), mine.get(key), f"{name}.{key}".strip("."))
    if name == "inputs":
        return "other tiles (their files, shapes or positions differ)"
    return f"{name.removeprefix('settings.')} = {theirs} instead of {mine}"
