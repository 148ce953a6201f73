"""TOML to rules and sites."""
