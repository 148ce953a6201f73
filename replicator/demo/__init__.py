"""A small honest registry in memory, and images to fill it."""
