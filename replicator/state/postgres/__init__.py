"""The state in a PostgreSQL database. Imported only where one is configured."""
