"""The documents kept in MongoDB."""
