"""Pure decisions: what is selected, and where it goes. No I/O, no clock."""
