"""OCI image layouts, one a repository: what skopeo, crane, oras and podman read as it is."""
