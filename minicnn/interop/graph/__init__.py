"""The neutral graph that readers make, and how it becomes a network: fold.py, lower.py."""
