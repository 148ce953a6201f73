"""Credentials that clouds issue: obtained by replicator itself, without helper programs, and renewed ahead of expiry."""
