"""What drives two policies apart, and the search for the strength that gives a divergence."""
