"""An OCI image layout in a tar, with one repository or many: read where it lies, written in one pass."""
