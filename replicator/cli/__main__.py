"""The entry point.

Imports nearly nothing before `main` runs: to Python, a SIGINT during imports is an exception, with a traceback for the user.
"""

import contextlib
import gc
import os
import signal
import sys


def main() -> None:
    """Runs the command line of the process and ends it with the exit code; never returns."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until `run_async` handles it. An exception may also get lost, where Python ignores those of callbacks.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # a tenth of the start-up time is spent in the collector during imports; see `run_async`
    from replicator.cli.program import run  # noqa: PLC0415 - see above

    code = run(sys.argv[1:])
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: was closed from the beginning
        with contextlib.suppress(OSError):  # has been reported: what was printed was flushed before
            stream.flush()
    # Nothing is left to do: `run` has closed what it opened and has waited for its threads. The interpreter would take
    # 0.02 s to free its modules one by one, and the system frees them at once.
    os._exit(code)


if __name__ == "__main__":
    main()
