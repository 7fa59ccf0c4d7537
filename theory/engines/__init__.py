"""Three engines, one answer: the exact recursion, exact enumeration, and sampling."""
