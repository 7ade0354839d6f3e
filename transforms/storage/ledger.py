"""What a run has done, so that it can be stopped at any instant and continued.

Below a run's folder:

    .ledger/run.json                                  whose run this is (config, inputs)
    .ledger/done/<stage>/<config hash>/<key>@<digest>    a unit is done; holds its record
    .ledger/failed/<stage>/<config hash>/<key>           a unit failed; holds the cause

`config hash` covers everything that the stage depends on, `digest` what this one unit was
asked to do. A unit counts as done only when both match, so a tile that was repaired, or a
position that moved, redoes what it touches and nothing else. Markers are written after
the unit's data was committed: their absence is the only thing that asks for work.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from warpbeam.transforms.storage import store

Key = tuple[Any, ...]
Record = dict[str, Any]

FOLDER = ".ledger"
# Letters of any script stay as they are: a file name has at most 255 bytes.
_UNSAFE = re.compile(r"[^\w\[\],.-]")


def digest(value: Any) -> str:
    """A short fingerprint of any JSON-able value; equal values give equal fingerprints."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Ledger:
    """The ledger of one stage of one run.

    Attributes:
        run: URI of the run's folder.
        stage: name of the stage.
        config_hash: fingerprint of all that the stage's results depend on, besides its units.
    """

    run: str
    stage: str
    config_hash: str

    def _folder(self, kind: str) -> str:
        return store.join(self.run, FOLDER, kind, self.stage, self.config_hash)

    def done(self) -> dict[str, str]:
        """Key name to digest of every unit that is done; one listing."""
        names = store.list_keys(self._folder("done") + "/")
        return dict(name.rsplit("@", 1) for name in names)

    def marks(self) -> dict[Key, str]:
        """Key to digest of every unit that is done, in the order of their names; one listing."""
        return {key_of(name): mark for name, mark in sorted(self.done().items())}

    def fingerprint(self) -> str:
        """Changes whenever a unit is done anew; one listing."""
        return digest(sorted(self.done().items()))

    def commit(self, key: Key, unit_digest: str, record: Record) -> None:
        """Marks a unit as done. Call it only after its data was committed."""
        name = f"{key_name(key)}@{unit_digest}"
        store.write_json(store.join(self._folder("done"), name), record)
        store.delete_prefix(self._folder("failed") + "/", key_name(key))

    def invalidate(self, key: Key) -> None:
        """Forgets what was done for this key, before its data is written anew."""
        store.delete_prefix(self._folder("done") + "/", f"{key_name(key)}@")

    def keep(self, names: Collection[str]) -> None:
        """Forgets all units but these (key names): the stage has no others any more."""
        for name in sorted(self.done().keys() - set(names)):
            store.delete_prefix(self._folder("done") + "/", f"{name}@")

    def fail(self, key: Key, cause: Record) -> None:
        """Records why a unit failed."""
        store.write_json(store.join(self._folder("failed"), key_name(key)), cause)

    def records(self) -> list[tuple[Key, Record]]:
        """Key and record of every unit that is done, sorted by key."""
        return self._read("done")

    def failures(self) -> list[tuple[Key, Record]]:
        """Key and cause of every unit that failed, sorted by key."""
        return self._read("failed")

    def _read(self, kind: str) -> list[tuple[Key, Record]]:
        folder = self._folder(kind)
        names = store.list_keys(folder + "/")
        values = store.read_many(folder, names)
        found = [
            (key_of(n.split("@")[0]), json.loads(v)) for n, v in zip(names, values, strict=True)
        ]
        return sorted(found, key=lambda item: item[0])

    def clear_failures(self) -> None:
        """Forgets the failures of an earlier try."""
        store.delete_prefix(self._folder("failed") + "/")


def forget_stages(run: str, prefix: str) -> None:
    """Forgets all stages whose names begin with `prefix`: their units are done again.

    A stage's name ends with `/`.
    """
    store.delete_prefix(store.join(run, FOLDER, "done") + "/", prefix)


def key_name(key: Key) -> str:
    """A key as an object name: readable, without slashes, and reversible."""
    text = json.dumps(key, separators=(",", ":"), ensure_ascii=False)
    return _UNSAFE.sub(lambda found: quote(found[0], safe=""), text)


def key_of(name: str) -> Key:
    return _tuples(json.loads(unquote(name)))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def chain(*parts: Iterable[Any] | Any) -> str:
    """The config hash of a stage from its own settings and the hashes of what it follows."""
    return digest(list(parts))
