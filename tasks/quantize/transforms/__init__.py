"""Transforms of the canonical weights, done before any scheme and for any runtime."""
