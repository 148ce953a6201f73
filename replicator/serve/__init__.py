"""A directory or bucket as a read-only registry that docker, podman and containerd pull from."""
