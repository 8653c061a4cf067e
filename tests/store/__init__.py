"""The transactions of the database, one by one and in any order."""
