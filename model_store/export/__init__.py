"""PyTorch modules in, packages out. torch runs only in subprocesses of this package, never in a serving process."""
