"""`python -m replicator`."""

from replicator.cli.__main__ import main

if __name__ == "__main__":
    main()
