"""The long-running agent: scheduler, triggers, reload, systemd; its HTTP side is in `http`."""
