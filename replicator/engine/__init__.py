"""observe -> plan -> transfer -> verify -> record. Knows ports only."""
