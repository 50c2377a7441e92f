"""Modality kinds, one file each; the registry finds them."""
