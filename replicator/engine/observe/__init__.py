"""What is there: the source, the destinations, and what is wanted."""
