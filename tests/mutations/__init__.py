"""Small, named mistakes, one for each common error in these operations. tests/test_mutations.py must detect every one.

One file per kind of layer; mutate.py defines what a mutation is.
"""

from tests.mutations import (
    activation,
    adam,
    augment,
    batchnorm,
    combine,
    conv,
    dropout,
    linear,
    loss,
    loss_scale,
    lrn,
    pool,
    resize_crop,
    rms_limit,
    sgd,
)

MUTATIONS = [mutation for module in (conv, linear, activation, pool, lrn, batchnorm, dropout, combine, loss, loss_scale,
                                     sgd, rms_limit, adam, augment, resize_crop)
             for mutation in module.MUTATIONS]
