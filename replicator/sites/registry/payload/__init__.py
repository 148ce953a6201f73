"""Requests that move the payload of large blobs: the same rules and errors as `wire`, the bytes moved by threads."""
