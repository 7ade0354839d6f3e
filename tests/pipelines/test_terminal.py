"""What libraries print."""

import io
import subprocess
import sys

from running import environment

from warpbeam.pipelines.terminal import _WithoutStacks

STACK = 'Traceback (most recent call last):\n  File ".../apache_beam/runners/worker/x.py", line 1\n'


def test_stacks_of_beams_workers_are_left_out_and_nothing_else():
    seen = io.StringIO()
    stream = _WithoutStacks(seen)
    print("before", file=stream)
    print(STACK, file=stream)
    print("Traceback (most recent call last):\n  ours", file=stream)
    print(file=stream)
    stream.flush()
    assert seen.getvalue() == "before\nTraceback (most recent call last):\n  ours\n\n"


def test_a_job_whose_listener_went_away_ends(tmp_path):
    """A worker that could not print never answered, and the job waited for it."""
    program = (
        "import sys, os\n"
        "from warpbeam.pipelines.terminal import quiet_libraries\n"
        "quiet_libraries()\n"
        "r, w = os.pipe(); os.close(r); os.dup2(w, 2)\n"
        "for _ in range(3): print('x' * 100_000, file=sys.stderr, flush=True)\n"
        "print('ended')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout == "ended\n"
