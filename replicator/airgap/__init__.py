"""Replication where no wire leads: what the other side has, and whether what came from there is whole."""
