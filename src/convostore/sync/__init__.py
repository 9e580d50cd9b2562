"""Between the stores: what happens in MongoDB is told to whoever follows, and to the cache."""
