"""A few kills of a real process; `make faults` runs many more."""

import kill_campaign
import pytest


@pytest.mark.parametrize(("job", "grid"), [("fuse", (1, 3)), ("growing", (2, 3))])
def test_a_killed_run_continues(tmp_path, job, grid):
    found = kill_campaign.campaign(tmp_path, kills=2, seed=3, job=job, grid=grid)
    assert [trial.good for trial in found] == [True, True], found
    assert sum(trial.kills for trial in found) == 2
