"""`minicnn explore`: a page on this machine in which one clicks through what a trained network responds to."""
