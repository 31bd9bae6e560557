"""The commands of `atelier`, one module each, imported when they are called."""
