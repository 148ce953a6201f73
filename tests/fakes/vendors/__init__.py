"""Registries in the field, one module each: `habits()` is what is odd about a vendor, as a middleware."""
