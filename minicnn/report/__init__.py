"""`minicnn report`: one HTML file about a training run, which opens offline.

    build.py        from the command to the file: what is done, in which order, and with how much work
    run.py          what a run folder holds: checkpoint, metrics, test result, ledger
    overview.py     what was trained, and how it differs from the paper
    curves.py       loss, accuracy and learning rate, as data for the charts;  filters.py  the first layer over time
    held_out.py     predictions on held-out images: which are shown, confusion matrix, accuracy by class
    seen.py         deconvnet, occlusion, and the strongest images of some maps
    machine.py      memory plan, communication between ranks, the timeline of a step
    pictures.py     arrays as images inside the file
    page.py         the HTML: templates/ by Jinja, words/ for the texts of each language
"""
