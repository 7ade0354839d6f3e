"""A plate's objects in a relational database: SQLite by default, PostgreSQL for real plates."""
