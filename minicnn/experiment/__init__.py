"""What a command or an example runs: settings, data and network, training, evaluation, pictures, pages of results.

    options.py      the command line of a training run
    settings.py     what was asked for, else what a resumed run had, else the defaults;  augmentation.py  --augment
    nets.py         the network that is meant: one of minicnn.models, or FILE.py:FUNCTION (own_net.py)
    prepare.py      data and network, before anything is written;  recipe.py  the recipe of this run
    run.py          training, on one rank or several (ranks.py);  introduce.py  its first lines
    evaluation.py   the test images;  page.py  pages of results
    trained.py      load_trained: a network from its checkpoint
"""
