"""Formats: how artifacts of each file format are read back."""
