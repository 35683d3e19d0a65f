"""Damaged files: every kind that minicnn reads must be refused in one line or read, never believed when it is ours."""
