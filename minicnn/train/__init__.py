"""How weights are found: the loop and what it is made of.

    recipe.py       what a run does, as plain data            sgd.py, schedule.py    the update, and its rate
    loop.py         Trainer: steps, epochs, stop and resume   feed.py                from photographs to what the net takes
    checkpoint.py   a run's whole state in one file           metrics.py             what is counted, and where it goes
    evaluate.py     one crop or ten                           interrupt.py progress.py memory.py    a run and its terminal
"""

from minicnn.train.evaluate import Evaluation, evaluate
from minicnn.train.feed import Feed
from minicnn.train.loop import Trainer
from minicnn.train.recipe import Recipe, SGDRecipe
from minicnn.train.schedule import Constant, Cosine, Plateau, Step
from minicnn.train.sgd import SGD

__all__ = ["Constant", "Cosine", "Evaluation", "Feed", "Plateau", "Recipe", "SGD", "SGDRecipe", "Step", "Trainer", "evaluate"]
