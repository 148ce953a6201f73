"""How often and how long things are tried, in one place; `docs/concepts.md` explains it.

Three loops, each around the next: a blob is read and sent (`READINGS`, `UPLOAD`), from each place that has it; a reading
is gone on with where it broke (`STALLED_READINGS`); each request is retried (`REQUEST`). A refusal for too much load
(429, 503) that outlasts the retries of a request is final for the run: the loops further out do not repeat it.
"""

from __future__ import annotations

from typing import Final

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """How much patience: calls in all, seconds from the first call to the last retry's start, and the waits.

    `refusals` are the calls that may be refused for the site having too much to do (429, 503); None: `attempts`. They
    count, and `seconds` run, only while the site serves nobody: see `retry.retrying`.

    The n-th wait is drawn evenly between 0 and `wait_initial` doubled n-1 times, `wait_max` at most ("full
    jitter": clients that failed together do not come back together).
    """

    attempts: int = 5
    seconds: float = 120.0
    wait_initial: float = 0.2
    wait_max: float = 30.0
    refusals: int | None = None


REQUEST: Final = Budget(refusals=8)
"""One request that is safe to repeat."""
MAX_TURNS: Final = 20
"""How often one call may be refused while others are served, before the call itself is taken to be the reason."""
REFUSED_SECONDS: Final = 75.0
"""How many seconds a site may refuse everybody: the windows of rate limits are a minute at most, as a rule."""
UPLOAD: Final = Budget(attempts=6, seconds=86_400.0, wait_initial=0.5, wait_max=10.0)
"""How often a blob is begun or resumed without getting on, before its failure is reported; a slow upload is not bounded."""
READINGS: Final = 4
"""How often a transfer may receive wrong bytes, for each place that has the blob."""
STALLED_READINGS: Final = 5
"""How often in a row a reading may break without one more byte; each of its requests is retried on its own."""
SLOW_READINGS: Final = 3
"""How often in a row one place may send slower than it has to, each time resumed where it stopped."""
CORRUPT_READINGS: Final = 2
"""How often one place may send bytes that are not the blob; the first time may have been the wire's fault."""
MOUNT_REFUSALS: Final = 3
"""After this many refused mounts in a row, a run no longer asks the destination for one."""
