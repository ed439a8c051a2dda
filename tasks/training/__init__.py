"""Training: one recipe, one loss and one loop for every framework, for float detectors and quantization-aware ones."""
