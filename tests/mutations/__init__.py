"""Small, named mistakes, one for every way in which people get these operations wrong. tests/test_mutations.py must
see every one of them.

One file per kind of layer, as everywhere; mutate.py holds what a mutation is.
"""

from tests.mutations import activation, augment, combine, conv, dropout, linear, loss, loss_scale, lrn, pool, sgd

MUTATIONS = [mutation for module in (conv, linear, activation, pool, lrn, dropout, combine, loss, loss_scale, sgd,
                                     augment)
             for mutation in module.MUTATIONS]
