"""`/api/v1`: JSON for programs, and a stream of changes."""
