"""Training: the loop and what it is made of.

    recipe.py         what a run does, as plain data;  recipes.py    published ones
    loop.py           Trainer: steps and epochs, from batch to update
    state.py          what a checkpoint holds of a run;  report.py    what a run prints and logs
    optimiser.py      the update of the weights: sgd.py, adam.py;  average.py    the moving average of the weights
    schedule.py       the learning rate;  loss_scale.py    for fp16
    step.py           a step as one CUDA graph
    calibrate.py      data-dependent initialisation;  finetune.py    weights of another run
    runs/             run folders, checkpoints, metrics, pages of results
    watch/            progress, waiting for data, diagnostics, memory, graceful shutdown
"""

from minicnn.data.input import InputPipeline
from minicnn.data.preprocess import Preprocess
from minicnn.evaluate.evaluate import Evaluation, evaluate
from minicnn.train.adam import Adam, AdamW
from minicnn.train.average import WeightAverage
from minicnn.train.loop import Trainer
from minicnn.train.recipe import AdamRecipe, AdamWRecipe, AverageRecipe, Recipe, SGDRecipe
from minicnn.train.schedule import Constant, Cosine, ExponentialDecay, OneCycle, Plateau, Polynomial, StepDecay
from minicnn.train.sgd import SGD

__all__ = ["Adam", "AdamRecipe", "AdamW", "AdamWRecipe", "AverageRecipe", "Constant", "Cosine", "Evaluation",
           "ExponentialDecay", "InputPipeline", "OneCycle", "Plateau", "Polynomial", "Preprocess", "Recipe", "SGD",
           "SGDRecipe", "StepDecay", "Trainer", "WeightAverage", "evaluate"]
