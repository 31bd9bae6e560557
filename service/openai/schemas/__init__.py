"""Requests and answers of /v1 as they look on the wire. Knows no message and no model."""
