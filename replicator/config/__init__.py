"""The config: from TOML files to rules and sites."""
