"""Text generation: sequences, their sampling streams, and the program that steps them together."""
