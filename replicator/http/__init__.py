"""What every HTTP server of the program has in common: `daemon`, `serve` and `demo` build on it."""
