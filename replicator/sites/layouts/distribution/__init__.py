"""What a CNCF distribution registry (`docker-registry`) keeps: a registry pointed at it serves it."""
