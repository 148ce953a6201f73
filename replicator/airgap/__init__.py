"""Replication across an air gap: what the other side has, and whether an archive is complete."""
