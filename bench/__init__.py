"""Speed and memory, side by side with the peers on this machine: `make bench`."""
