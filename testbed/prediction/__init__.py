"""Which logged diagnostic predicts the exact error of an estimator, over many environments and kinds of drift."""
