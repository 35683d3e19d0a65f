"""The specification: every operation in plain NumPy, the derivation of each backward above it."""
