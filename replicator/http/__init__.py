"""What every HTTP server of the program has in common: `daemon` and `serve` build on it."""
