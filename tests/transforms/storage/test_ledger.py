"""The laws of the ledger."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warpbeam.transforms.storage import store
from warpbeam.transforms.storage.ledger import (
    Ledger,
    chain,
    digest,
    forget_stages,
    key_name,
    key_of,
)

plain = st.one_of(st.integers(), st.text())
keys = st.recursive(plain, lambda part: st.lists(part, max_size=3).map(tuple), max_leaves=6)


@given(st.lists(keys, max_size=4).map(tuple))
def test_key_names_are_reversible(key):
    name = key_name(key)
    assert key_of(name) == key
    assert "/" not in name
    assert "@" not in name
    assert name not in (".", "..")
    assert name.isprintable()


@given(st.text(max_size=8), st.text(max_size=8))
def test_no_key_name_begins_another(a, b):
    one, two = key_name((0, 0, a)), key_name((0, 0, b))
    assert two.startswith(one) == (a == b)


def test_names_of_files_in_other_scripts_stay_short():
    """A file name has at most 255 bytes on the common file systems."""
    assert len(key_name((0, 0, "細胞核染色標本" * 7)).encode()) < 200


@pytest.fixture
def ledger(tmp_path):
    return Ledger(str(tmp_path), "fuse", "abc")


AWKWARD = [(0, 0, "a/b"), (0, 0, "a"), (0, 0, "a b@c%20"), (1, (2, 3)), (0, 0, "é細#?*")]


def test_what_is_committed_is_done(ledger):
    for k, key in enumerate(AWKWARD):
        ledger.commit(key, f"d{k}", {"n": k})
    assert ledger.done() == {key_name(key): f"d{k}" for k, key in enumerate(AWKWARD)}
    found = dict(ledger.records())
    assert found == {key: {"n": k} for k, key in enumerate(AWKWARD)}


def test_invalidate_forgets_one_key(ledger):
    for key in AWKWARD:
        ledger.commit(key, "d", {})
    ledger.invalidate((0, 0, "a"))
    assert key_name((0, 0, "a")) not in ledger.done()
    assert len(ledger.done()) == len(AWKWARD) - 1


def test_keep_forgets_all_others(ledger):
    for key in (("a", 1), ("a", 10), ("b", 1)):
        ledger.commit(key, "d", {})
    ledger.keep({key_name(("a", 1)), key_name(("c", 0))})
    assert [key for key, _ in ledger.records()] == [("a", 1)]


def test_success_clears_the_failure(ledger):
    ledger.fail((0, 0, "a"), {"cause": "x"})
    ledger.fail((0, 0, "ab"), {"cause": "y"})
    ledger.commit((0, 0, "a"), "d", {})
    assert ledger.failures() == [((0, 0, "ab"), {"cause": "y"})]
    ledger.clear_failures()
    assert ledger.failures() == []


def test_configurations_and_stages_are_apart(ledger, tmp_path):
    others = [Ledger(str(tmp_path), "fuse", "abd"), Ledger(str(tmp_path), "fuse2", "abc")]
    for each in (ledger, *others):
        each.commit((1,), "d", {})
    forget_stages(ledger.run, f"{ledger.stage}/")
    assert ledger.done() == {}
    assert others[1].done()
    assert others[0].done() == {}  # the stage as a whole is forgotten


def test_an_empty_ledger(ledger):
    assert ledger.done() == {}
    assert ledger.records() == []
    ledger.clear_failures()
    ledger.invalidate((1,))


def test_locks_of_killed_writers_are_no_markers(ledger, tmp_path):
    ledger.commit((1,), "d", {})
    (marker,) = (tmp_path / ".ledger" / "done" / "fuse" / "abc").iterdir()
    marker.with_name(key_name((2,)) + "@d" + store.LOCK_SUFFIX).write_text("")
    assert ledger.done() == {key_name((1,)): "d"}


def test_a_chain_depends_on_every_part():
    assert chain("a", "b", {"x": 1, "y": 2}) == chain("a", "b", {"y": 2, "x": 1})
    assert len({chain("a", "b", 1), chain("a", "b", 2), chain("b", "a", 1), digest("ab1")}) == 4


def test_marks_have_the_keys_of_what_is_done(tmp_path):
    ledger = Ledger(str(tmp_path), "stage", "hash")
    before = ledger.fingerprint()
    ledger.commit((3, ("a", 1)), "d1", {})
    ledger.commit((10,), "d2", {})
    assert ledger.marks() == {(3, ("a", 1)): "d1", (10,): "d2"}
    assert ledger.fingerprint() != before
