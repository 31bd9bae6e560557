"""How evaluations are shown: in a terminal, on a page, two beside each other. Measures nothing."""
