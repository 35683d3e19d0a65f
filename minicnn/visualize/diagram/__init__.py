"""A network drawn to scale: its stages (stages.py), where they are placed (layout.py), and the figure (draw.py)."""
