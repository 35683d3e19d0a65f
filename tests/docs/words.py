"""Words that are not to be written, and the standard term to write instead; read by test_words.py.

Rule(pattern, instead, fine, bad, good, files): `pattern` is a regular expression of whole words, in any case; a space
in it is any white space, so that a phrase may run over the end of a line. `fine`: contexts where the words are right,
taken out before the search. `bad` must be found, `good` must not. `files`: paths in which the words are right.

PROSE is searched for in comments, docstrings, messages and Markdown, without `backticks`; CODE in the whole text.
"""

from typing import NamedTuple


class Rule(NamedTuple):
    pattern: str
    instead: str
    fine: str
    bad: str
    good: str
    files: str = "$^"


PROSE = [
    Rule(r"rates?", "learning rate (a machine's: throughput)",
         r"(learning|dropout|frame|error|sampling) rates?|Dropout: rate",
         "the rate is divided by ten", "the learning\nrate, the dropout rate, frame rate", files="benchmarks/|dropout"),
    Rule(r"decay", "weight decay", r"weight decay|weight-decay|(not|nor) decay|decay (lr|w)|[-+*] decay|decay [-+*]",
         "momentum and a decay of 0.0005", "weight decay; biases do not decay; v - decay * lr * w"),
    Rule(r"deviations?", "standard deviation", r"standard deviations?", "mean 0, deviation 1", "4 standard deviations"),
    Rule(r"slopes?", "gradient, derivative, element of a gradient", r"negative slope|LeakyReLU: slope",
         "144 slopes were compared", "LeakyReLU's negative slope",
         files="benchmarks/|activation|own_net_and_layer|docs/add_a"),
    Rule(r"\d % right|\d % of [^.]{,60} right|hits?", "accuracy 76.5 %; top-k correct", r"cache hits?",
         "val 76.5 % right; the hits of a row", "accuracy 76.5 %, and 12 cache hits"),
    Rule(r"prove[sdn]?|proving|proofs?", "test, verify, check (mathematics: derive)", r"[a-z]+-proof",
         "every gradient is proven", "every gradient is tested, kill-proof"),
    Rule(r"tell(s|ing)? [^.]{,40} ?apart|told apart", "distinguish; has 10 classes", r"", "it tells 10 classes apart",
         "three inches apart"),
    Rule(r"python's lock", "the GIL", r"", "decoders release Python's lock", "decoders release the GIL"),
    Rule(r"(the|a) lead|lead alone", "rank 0, the main process", r"", "written by the lead", "paths that lead here"),
    Rule(r"louder|loud(ly)?", "larger, amplified", r"", "a net that begins too loud", "not amplified"),
    Rule(r"wish(es|ed)?", "request, ask", r"", "a wish to stop came", "a stop was requested"),
    Rule(r"today('s)?|of the day", "per-step, current", r"", "those of the day", "values of this step"),
    Rule(r"recorded (steps?|launch\w*|once|and replayed)|steps? ([\w']+ ){,4}recorded|can(not)? be recorded",
         "captured (CUDA graph)", r"", "a step that was recorded", "the event is recorded; a captured step"),
    Rule(r"by heart", "overfits", r"", "32 images by heart", "at the heart of it"),
    Rule(r"judge[sd]?|judging", "evaluate; criterion", r"(minicnn|\.)\[judge\]|make judge", "images to judge by",
         "pip install 'minicnn[judge]'"),
    Rule(r"(is|are|was|were|be|being|has) told|told (from|to|of|besides)", "is given, receives, is informed", r"",
         "it is told the error", "foretold"),
    Rule(r"stands?|stood", "is, is stored, is written", r"stands? for|stand-?ins?|as it stands|stood still",
         "the gate stands in a table", "N stands for the batch"),
    Rule(r"len[dt]s?", "gave; sums what each window received", r"", "collects what it lent", "a lens"),
    Rule(r"meets|(ranks?|columns?|paths?) (that |both )?meet", "communicate, join, come together", r"",
         "where ranks meet", "meeting point"),
    Rule(r"way back", "backward pass", r"", "the way back through ReLU", "the backward pass"),
    Rule(r"turned round|at home|passes for|three times over", "plain words", r"", "Turned round: tap",
         "Equivalently: tap"),
    Rule(r"(weights?|biases|outputs|layers?|net(work)?s?|parameters?) ((that|is to|are to) )*beg[aiu]ns? (as|at|with)",
         "initialised with", r"", "biases of 1; the network begins as", "weights are initialised with"),
    Rule(r"start that (fits|is fitted)", "data-dependent (LSUV-like) initialisation", r"",
         "a start that fits the images", "data-dependent initialisation"),
    Rule(r"(is|are|was|were) said|what goes wrong", "reported; diagnostics", r"", "an error is said", "is reported"),
]

CODE = [
    Rule(r"hits|louder|loud|wish(es)?|today|_today|\w*for_the_lock|must_tell_apart|deviations?", "see PROSE",
         r"standard deviations?|cache hits", "self._today = hits", "4 standard deviations"),
    Rule(r"OnlyRank|only_rank|RecordedStep|recordable|Tally|Feed|Watch|take_over|\w+\.lead", "see docs/moved.md", r"",
         "net.lead", "net.ranks.is_main; leading"),
]
