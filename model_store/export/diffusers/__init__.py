"""Local diffusers directories become packages that make pictures in steps."""
