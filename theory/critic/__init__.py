"""Policy gradients that use a critic, right or wrong: exact moments by an affine backward recursion."""
