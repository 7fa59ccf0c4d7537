"""`testbed explore`: a local page with controls and the exact numbers that they lead to."""
