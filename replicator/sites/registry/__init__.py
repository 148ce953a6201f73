"""Registries over HTTP: the OCI distribution-spec and what real registries make of it."""
