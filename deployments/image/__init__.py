"""Image generation in one step: GAN generators and VAE decoders."""
