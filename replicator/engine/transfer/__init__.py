"""Bytes to a destination: blobs, then manifests, the tag last."""
