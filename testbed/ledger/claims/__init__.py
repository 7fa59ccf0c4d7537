"""One file per claim; its name is the claim's."""
