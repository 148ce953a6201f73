"""What the agent does as one of several: hands what is due to all of them, and runs what it takes from the queue."""
