"""Weight, signal and reduction as released libraries and papers put them together, under the libraries' spelling."""
