"""Functions on real input, and what ./dev up does with them."""
