"""How work flows: gates, pace, retry, single flight. Knows time and tasks, not registries."""
