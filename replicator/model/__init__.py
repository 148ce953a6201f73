"""Pure data of the field: digest, descriptor, manifest, names. No I/O."""
