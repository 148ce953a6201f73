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
    _open_standard_streams()
    gc.disable()  # a tenth of the start-up time is spent in the collector during imports; see `run_async`
    from replicator.cli.program import run  # noqa: PLC0415 - see above

    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # has been reported: what was printed was flushed before
            stream.flush()
    # Nothing is left to do: `run` has closed what it opened and has waited for its threads. The interpreter would take
    # 0.02 s to free its modules one by one, and the system frees them at once.
    os._exit(code)


def _open_standard_streams() -> None:
    """Opens those that are closed, as null devices.

    Their numbers would go to files and sockets: messages would be written into these, and uvloop aborts when it closes one.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - the lowest free number is its own


if __name__ == "__main__":
    main()
