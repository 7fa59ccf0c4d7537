"""Which baseline has the least exact error, and what it costs to choose one from samples alone."""
