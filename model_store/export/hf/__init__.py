"""Local Hugging Face directories in, packages out. Nothing is downloaded, no code from a directory runs, no pickle is read."""
