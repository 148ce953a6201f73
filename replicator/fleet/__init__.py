"""Several agents on one PostgreSQL database: who lives, who works on what, and the queue of what is to be done."""
