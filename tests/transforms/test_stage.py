"""The stage mechanism: once, retried, counted, never lost. Attempts are counted in files."""

import functools
import json
import os
from pathlib import Path

import apache_beam as beam
import pytest

from warpbeam.transforms.stage import After, RunStage, Stage, announced, is_passing
from warpbeam.transforms.storage.errors import InputError
from warpbeam.transforms.storage.ledger import Ledger, digest


class Flaky:
    """Work that notes every call in a file, and fails the first `failures` times of a key."""

    def __init__(self, folder, failures=0, error=OSError, only=None):
        self.folder, self.failures, self.error, self.only = str(folder), failures, error, only

    def setup(self):
        Path(self.folder).mkdir(exist_ok=True)

    def __call__(self, key, payload):
        note = Path(self.folder, str(key[0]))
        with note.open("a") as stream:
            stream.write(f"{payload}\n")
        if self.only in (None, key[0]) and len(note.read_text().split()) <= self.failures:
            raise self.error(f"busy with {key}")
        return {"payload": payload, "bytes_read": 2, "bytes_written": 3}

    def calls(self):
        return {p.name: len(p.read_text().split()) for p in Path(self.folder).glob("*")}


def listed(units):
    return list(announced("s", units))


def run(stage, units, work, outcome):
    """The counters; `outcome`: units that should be done, skipped and failed."""
    pipeline = beam.Pipeline(runner="FnApiRunner")
    ready = pipeline | After("units", functools.partial(listed, units), None)
    ready | RunStage(stage, work)
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query()["counters"]
    found = {
        c.key.metric.name: c.result for c in counters if c.key.metric.namespace == "warpbeam.s"
    }
    assert tuple(found.get(name, 0) for name in ("done", "skipped", "failed")) == outcome
    return found


@pytest.fixture
def ledger(tmp_path):
    return Ledger(str(tmp_path / "run"), "s", "hash")


UNITS = [(("a",), 1), (("b",), 2), (("c",), 3)]


def test_units_are_done_once(ledger, tmp_path):
    work = Flaky(tmp_path / "calls")
    counters = run(Stage(ledger), UNITS, work, (3, 0, 0))
    assert work.calls() == {"a": 1, "b": 1, "c": 1}
    assert {k: counters[k] for k in ("done", "bytes_read", "bytes_written")} == {
        "done": 3, "bytes_read": 6, "bytes_written": 9,
    }  # fmt: skip
    assert run(Stage(ledger), UNITS, work, (0, 3, 0)) == {"skipped": 3}
    assert work.calls() == {"a": 1, "b": 1, "c": 1}
    assert [r["payload"] for _, r in ledger.records()] == [1, 2, 3]


def test_a_changed_payload_is_done_again_and_so_is_the_old_one(ledger, tmp_path):
    work = Flaky(tmp_path / "calls")
    changed = [(("a",), 9), *UNITS[1:]]
    run(Stage(ledger), UNITS, work, (3, 0, 0))
    run(Stage(ledger), changed, work, (1, 2, 0))
    run(Stage(ledger), UNITS, work, (1, 2, 0))
    assert work.calls() == {"a": 3, "b": 1, "c": 1}
    assert len(ledger.done()) == 3


def test_a_passing_error_is_tried_again(ledger, tmp_path):
    work = Flaky(tmp_path / "calls", failures=2)
    counters = run(Stage(ledger, attempts=3, first_pause_s=0.01), UNITS, work, (3, 0, 0))
    assert work.calls() == {"a": 3, "b": 3, "c": 3}
    assert counters["retries"] == 6


def test_tries_come_to_an_end(ledger, tmp_path):
    work = Flaky(tmp_path / "calls", failures=99, only="b")
    run(Stage(ledger, attempts=3, first_pause_s=0.01), UNITS, work, (2, 0, 1))
    assert work.calls() == {"a": 1, "b": 3, "c": 1}
    ((key, cause),) = ledger.failures()
    assert key == ("b",)
    assert cause["error"] == "OSError"
    assert "busy with ('b',)" in cause["cause"]


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, PermissionError, KeyError])
def test_a_permanent_error_is_not_tried_again(ledger, tmp_path, error):
    work = Flaky(tmp_path / "calls", failures=99, error=error, only="b")
    run(Stage(ledger, first_pause_s=0.01), UNITS, work, (2, 0, 1))
    assert work.calls() == {"a": 1, "b": 1, "c": 1}
    healed = Flaky(tmp_path / "calls")
    run(Stage(ledger), UNITS, healed, (1, 2, 0))
    assert ledger.failures() == []


def test_a_failure_of_a_redone_unit_takes_its_mark_away(ledger, tmp_path):
    run(Stage(ledger), UNITS, Flaky(tmp_path / "calls"), (3, 0, 0))
    broken = Flaky(tmp_path / "calls", failures=99, error=ValueError)
    run(Stage(ledger), [(("a",), 9)], broken, (0, 0, 1))
    assert len(ledger.done()) == 2


def test_a_critical_failure_stops_the_pipeline(ledger, tmp_path):
    work = Flaky(tmp_path / "calls", failures=99, error=ValueError, only="b")
    with pytest.raises(Exception, match="busy with"):
        run(Stage(ledger, critical=True), UNITS, work, (2, 0, 1))
    assert [key for key, _ in ledger.failures()] == [("b",)]


def test_a_stage_waits_for_the_one_before(tmp_path):
    """The units of the second are listed from what the first stored."""
    first, second = (Ledger(str(tmp_path / "run"), name, "h") for name in ("one", "two"))
    pipeline = beam.Pipeline(runner="FnApiRunner")
    units = pipeline | After("first", functools.partial(listed, UNITS), None)
    barrier = units | RunStage(Stage(first), Flaky(tmp_path / "one"))
    later = pipeline | After("second", functools.partial(_from_records, first), barrier)
    later | RunStage(Stage(second), Flaky(tmp_path / "two"))
    pipeline.run().wait_until_finish()
    assert [r["payload"] for _, r in second.records()] == [10, 20, 30]


def _from_records(ledger):
    return listed([(key, 10 * record["payload"]) for key, record in ledger.records()])


def test_a_stage_without_units_holds_up_nothing(ledger, tmp_path):
    pipeline = beam.Pipeline(runner="FnApiRunner")
    units = pipeline | After("nothing to do", list, None)
    barrier = units | RunStage(Stage(Ledger(str(tmp_path), "none", "h")), Flaky(tmp_path / "none"))
    later = pipeline | After("some", functools.partial(listed, UNITS), barrier)
    later | RunStage(Stage(ledger), Flaky(tmp_path / "calls"))
    pipeline.run().wait_until_finish()
    assert len(ledger.done()) == 3


def test_what_passes():
    assert is_passing(OSError("connection reset"))
    assert is_passing(TimeoutError())
    assert is_passing(ValueError("UNAVAILABLE: try again"))
    assert not is_passing(ValueError("NOT_FOUND"))
    assert not is_passing(FileNotFoundError("UNAVAILABLE"))
    wrong = InputError("x UNAVAILABLE", where="", expected="", got="", fix="")
    assert not is_passing(wrong)


def test_a_digest_is_the_value():
    assert digest({"b": (1, 2), "a": "é"}) == digest(json.loads('{"a": "é", "b": [1, 2]}'))
    assert digest([1, 2]) != digest([2, 1])
    assert os.sep not in digest("/")
