"""The /v1 dialect: OpenAI's API, extended in its own style for reconstruction, anomalies and latents."""
