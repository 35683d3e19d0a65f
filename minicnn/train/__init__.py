"""How weights are found: the loop and what it is made of.

    recipe.py         what a run does, as plain data
    feed.py           from photographs to what the net takes
    sgd.py            the update of the weights;  schedule.py    its rate
    loop.py           Trainer: steps and epochs, stopping and going on;  interrupt.py progress.py memory.py serve it
    watch.py          what goes wrong, and what to try;  stall.py    how long steps wait for data
    evaluate.py       one crop or ten;  metrics.py    what is counted, and the file it goes to
    checkpoint.py     a run's whole state in one file;  run.py    the folders of runs;  results.py    pages of results
"""

from minicnn.data.input import InputPipeline
from minicnn.evaluate.evaluate import Evaluation, evaluate
from minicnn.train.loop import Trainer
from minicnn.train.recipe import Recipe, SGDRecipe
from minicnn.train.schedule import Constant, Cosine, Plateau, StepDecay
from minicnn.train.sgd import SGD

__all__ = ["Constant", "Cosine", "Evaluation", "InputPipeline", "Plateau", "Recipe", "SGD", "SGDRecipe", "StepDecay",
           "Trainer", "evaluate"]
