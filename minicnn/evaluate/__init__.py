"""How good a net is on images it has not learned from, and what it makes of a photograph."""
