"""Measures a package on held-out data: what it computes, how well, and how sure that is. Knows no HTTP and no page."""
