"""A few kills of a real process; `make faults` runs many more."""

import kill_campaign


def test_a_killed_run_continues(tmp_path):
    found = kill_campaign.campaign(tmp_path, kills=2, seed=3, job="fuse", grid=(1, 3))
    assert [trial.good for trial in found] == [True, True], found
    assert sum(trial.kills for trial in found) == 2
