"""Experiments on learned features: through training, their invariance, correspondence, neighbours and colour."""
