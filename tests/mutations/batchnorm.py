"""Mistakes in batch normalisation, and in the scale and shift of channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.mutations.mutate import Mutation, added, afterwards, arguments, option


def statistics(change: Callable) -> Callable:
    """change(x as rows, mean, var): what is done to the correct mean and var."""
    return afterwards(lambda x, mean, var: change(x.reshape(-1, x.shape[-1]), mean, var))


def unbiased(x, mean, var):
    var *= len(x) / (len(x) - 1)


def about_zero(x, mean, var):
    var += mean**2


def standard_deviation(x, mean, var):
    np.sqrt(var, out=var)


def without_mean(x, mean, var):
    mean[...] = 0


def of_one_image(x, mean, var):
    mean[...] = x[: len(x) // 2].mean(axis=0)


def sums(change: Callable) -> Callable:
    """The correct operation with other sums: change(sum of dz, sum of dz * (x - mean))."""
    return option("sums", lambda given: None if given is None else np.stack(change(*given)))


def epsilon_outside(op, ops):
    """w * (x - mean) / (sqrt(var) + eps)."""
    def call(*args, var, eps, **options):
        op(*args, var=(np.sqrt(var) + eps) ** 2, eps=0.0, **options)
    return call


def weights(change: Callable) -> Callable:
    """What the correct operation added to dw and db is changed: change(dw, db, x, dy, options)."""
    def wrong(op, ops):
        def call(x, dy, w, b, dw, db, dz, sums, **options):
            before, given = (dw.copy(), db.copy()), dy.copy()
            op(x, dy, w, b, dw, db, dz, sums, **options)
            for grad, old, own in zip((dw, db), before, change(dw - before[0], db - before[1], x, given, options),
                                      strict=True):
                grad[...] = old + own
        return call
    return wrong


def by_column(a):
    return a.reshape(-1, a.shape[-1]).sum(axis=0)


def dw_of_x(dw, db, x, dy, options):
    return by_column(x * dy), db


def without_root(dw, db, x, dy, options):
    return dw / np.sqrt(options["var"] + options["eps"]), db


def without_deviation(dw, db, x, dy, options):
    return dw * np.sqrt(options["var"] + options["eps"]), db


def mask_forgotten(dw, db, x, dy, options):
    return dw, by_column(dy)


def db_averaged(dw, db, x, dy, options):
    return dw, db * x.shape[-1] / x.size


def no_scale(op, ops):
    """dx without w."""
    return lambda x, dy, w, b, dx, **options: op(x, dy, np.ones_like(w), b, dx, **options)


def without_statistics(op, ops):
    """dx = w * dz: 1 / s forgotten."""
    return lambda x, dy, w, b, dx, *, mean, var, eps, **options: op(
        x, dy * np.sqrt(var + eps), w, b, dx, mean=mean, var=var, eps=eps, **options)


def residual_unmasked(op, ops):
    """The residual's gradient, and all that follows, is dy."""
    def call(x, dy, w, b, dw, db, dz, sums, **options):
        given = dy.copy()
        op(x, dy, w, b, dw, db, dz, sums, **options)
        dz[...] = given
    return call


def residual_after_relu(op, ops):
    def call(x, w, b, y, *, residual, **options):
        op(x, w, b, y, **options)
        y += residual
    return call


FORWARDS = {"var of m - 1 values": unbiased, "var about zero": about_zero, "var is its root": standard_deviation,
            "mean forgotten": without_mean, "mean of half the batch": of_one_image}
SUMS = {"mean of dz forgotten": lambda dz, dzx: (0 * dz, dzx), "part along x^ forgotten": lambda dz, dzx: (dz, 0 * dzx),
        "mean of dz added": lambda dz, dzx: (-dz, dzx), "part along x^ added": lambda dz, dzx: (dz, -dzx),
        "sums swapped": lambda dz, dzx: (dzx, dz)}
RUNNING = {
    "momentum of the old ones": option("momentum", lambda momentum: 1 - momentum),
    "biased variance stored": option("count", lambda count: 1e12),
    "n + 1 in place of n - 1": arguments(lambda mean, var, *running: (mean, var * 11 / 13, *running)),
    "mean forgotten": arguments(lambda mean, var, old_mean, old_var: (mean, var, old_mean.copy(), old_var)),
    "variance forgotten": arguments(lambda mean, var, old_mean, old_var: (mean, var, old_mean, old_var.copy())),
    "standard deviation stored": arguments(lambda mean, var, *running: (mean, np.sqrt(var), *running)),
}

MUTATIONS = [
    *(Mutation(f"batchnorm: {name}", "batchnorm", {"batchnorm_statistics": statistics(change)})
      for name, change in FORWARDS.items()),
    *(Mutation(f"batchnorm: {name} in dx", "batchnorm", {"affine_backward_data": sums(change)})
      for name, change in SUMS.items()),
    *(Mutation(f"batchnorm: running {name}", "batchnorm_running", {"batchnorm_update_statistics": change}, True)
      for name, change in RUNNING.items()),
    Mutation("batchnorm: eps outside the root", "batchnorm", {"affine_forward": epsilon_outside}),
    Mutation("batchnorm: eps forgotten", "batchnorm", {"affine_forward": option("eps", lambda eps: 0.0)}),
    Mutation("batchnorm: eps forgotten in dx", "batchnorm", {"affine_backward_data": option("eps", lambda eps: 0.0)}),
    Mutation("batchnorm: eps forgotten in dw", "batchnorm", {
        "affine_backward_weights": option("eps", lambda eps: 0.0)}),
    Mutation("batchnorm: shift forgotten", "batchnorm", {
        "affine_forward": arguments(lambda x, w, b, y: (x, w, None, y))}),
    Mutation("batchnorm: dx divided by m - 1", "batchnorm", {"affine_backward_data": option("count", lambda m: m - 1)}),
    Mutation("batchnorm: scale forgotten in dx", "batchnorm", {"affine_backward_data": no_scale}),
    Mutation("batchnorm: 1 / s forgotten in dx", "batchnorm", {"affine_backward_data": without_statistics}),
    Mutation("batchnorm: dx added", "batchnorm", {"affine_backward_data": added}),
    Mutation("batchnorm: dw of x in place of x^", "batchnorm", {"affine_backward_weights": weights(dw_of_x)}),
    Mutation("batchnorm: dw divided by s twice", "batchnorm", {"affine_backward_weights": weights(without_root)}),
    Mutation("batchnorm: 1 / s forgotten in dw", "batchnorm", {"affine_backward_weights": weights(without_deviation)}),
    Mutation("batchnorm: db a mean", "batchnorm", {"affine_backward_weights": weights(db_averaged)}),
    Mutation("batchnorm: dw and db written", "batchnorm", {
        "affine_backward_weights": option("add", lambda add: (False, False))}),
    Mutation("batchnorm: last image forgotten in dw", "batchnorm", {
        "affine_backward_weights": lambda op, ops: lambda x, dy, *rest, **options: op(x[:-1], dy[:-1].copy(), *rest,
                                                                                      **options)}),
    Mutation("batchnorm: mask forgotten in dx", "batchnorm_relu", {
        "affine_backward_data": option("relu", lambda relu: False)}),
    Mutation("batchnorm: mask forgotten in the sums", "batchnorm_relu", {
        "affine_backward_weights": option("relu", lambda relu: False)}),
    Mutation("batchnorm: mask forgotten in db", "batchnorm_relu", {"affine_backward_weights": weights(mask_forgotten)}),
    Mutation("batchnorm: mask taken without the residual", "batchnorm_residual", {
        "affine_backward_weights": option("y", lambda y: None)}),
    Mutation("batchnorm: residual's gradient not masked", "batchnorm_residual", {
        "affine_backward_weights": residual_unmasked}),
    Mutation("batchnorm: residual forgotten", "batchnorm_residual", {
        "affine_forward": option("residual", lambda residual: None)}),
    Mutation("batchnorm: residual added after the ReLU", "batchnorm_residual", {"affine_forward": residual_after_relu}),
    Mutation("batchnorm: fixed statistics swapped", "batchnorm_fixed", {
        "batchnorm_fixed_statistics": arguments(lambda a, b, mean, var: (a, b, var, mean))}, True),
    Mutation("batchnorm: fixed statistics forgotten", "batchnorm_fixed", {
        "batchnorm_fixed_statistics": lambda op, ops: lambda a, b, mean, var: (mean.fill(0), var.fill(1))}, True),
    Mutation("batchnorm: fixed statistics treated as those of the batch", "batchnorm_fixed", {
        "affine_backward_data": lambda op, ops: lambda *args, **options: op(*args, **options, sums=np.ones((2, 3)),
                                                                            count=16)}),
    Mutation("affine: scale forgotten", "affine", {
        "affine_forward": arguments(lambda x, w, b, y: (x, np.ones_like(w), b, y))}),
    Mutation("affine: shift forgotten", "affine", {"affine_forward": arguments(lambda x, w, b, y: (x, w, None, y))}),
    Mutation("affine: scale forgotten in dx", "affine", {"affine_backward_data": no_scale}),
    Mutation("affine: dw written", "affine", {"affine_backward_weights": option("add", lambda add: (False, True))}),
    Mutation("affine: db written", "affine", {"affine_backward_weights": option("add", lambda add: (True, False))}),
    Mutation("affine: mask forgotten in dx", "affine_relu", {
        "affine_backward_data": option("relu", lambda relu: False)}),
    Mutation("affine: ReLU forgotten", "affine_relu", {"affine_forward": option("relu", lambda relu: False)}),
]
