"""Encoded pictures to arrays and back; knows no model."""

from deployments.pictures.provenance import provenance
from deployments.pictures.reading import MAX_PIXELS, MAX_SIDE, decode, fitted, read_mask, read_picture
from deployments.pictures.writing import Kind, encode, heat, keeps_alpha

__all__ = [
    "MAX_PIXELS",
    "MAX_SIDE",
    "Kind",
    "decode",
    "encode",
    "fitted",
    "heat",
    "keeps_alpha",
    "provenance",
    "read_mask",
    "read_picture",
]
