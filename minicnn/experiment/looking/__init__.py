"""The pictures of `minicnn look`, each from what was asked for."""
