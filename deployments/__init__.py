"""Messages in, results out: engines that batch tensors. Knows no HTTP."""
