"""A benchmark: the same servers written with everything people would pick, side by side."""
