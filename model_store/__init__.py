"""Files in, sessions out: packages, their store, their sessions. Knows no batching, no HTTP, no Ray."""
