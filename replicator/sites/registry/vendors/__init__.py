"""The vendors whose registries are known, one module each."""
