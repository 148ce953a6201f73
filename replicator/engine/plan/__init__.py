"""What is to be done. Pure: no await, no clock, no I/O."""
