"""Whether an image is trusted: signatures of cosign and sigstore, verified offline. Pure: no I/O."""
