"""Brings destinations in step: observe -> plan -> transfer -> verify -> record. Knows ports only."""
