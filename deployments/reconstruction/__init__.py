"""Reconstruction, anomaly scores and latents of autoencoders."""
