"""HTTP in, HTTP out. Knows no tensor."""
