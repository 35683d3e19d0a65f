"""Convolution: y[n,p,q,k] = b[k] + sum over r, s, c of x[n, p*u + r - top, q*v + s - left, c] * w[r,s,c,k].

x (N, H, W, C), w (R, S, C/G, K), y (N, P, Q, K); pixels outside the image are 0. With G groups, channels and kernels
are cut into G equal parts, and part g of y reads part g of x only (the two GPUs of the AlexNet paper are G = 2).

im2col writes the window of every output pixel as one row, and the convolution becomes one matrix product per group:

    X = im2col(x)   (N*P*Q, R*S*C/G)        Y = X W + b        W = w   (R*S*C/G, K/G)

The backward needs x and w; nothing else is saved. A fused ReLU is undone first, by epilogue_backward.
"""

from __future__ import annotations

import numpy as np

from minicnn.kernels.reference.windows import pad, scratch, taps, unpad


def im2col(x, kernel, stride, pads, out_size, work=None):
    """x (N, H, W, C) -> X (N*P*Q, R*S*C): a row is an output pixel, a column one tap (r, s) of one channel."""
    (R, S), (P, Q), (N, C) = kernel, out_size, (x.shape[0], x.shape[3])
    padded = pad(x, pads)                                                      # (N, top+H+bottom, left+W+right, C)
    X = scratch(work, (N, P, Q, R * S, C), x.dtype)
    for tap, (rows, columns) in enumerate(taps(kernel, stride, out_size)):
        X[:, :, :, tap] = padded[:, rows, columns]                             # (N, P, Q, C)
    return X.reshape(N * P * Q, R * S * C)


def col2im(dX, dx, kernel, stride, pads, out_size):
    """dX (N*P*Q, R*S*C) -> dx (N, H, W, C), the transpose of im2col.

    im2col only copies: X[a] = x[i(a)]. Its transpose adds up all copies of a pixel: dx[i] = sum of dX[a] over i(a) = i,
    one term for every window that contains pixel i; terms that belong to the padding are dropped.
    """
    (R, S), (P, Q), (N, H, W, C) = kernel, out_size, dx.shape
    top, left, bottom, right = pads
    dX = dX.reshape(N, P, Q, R * S, C)
    padded = np.zeros((N, top + H + bottom, left + W + right, C), dx.dtype)
    for tap, (rows, columns) in enumerate(taps(kernel, stride, out_size)):
        padded[:, rows, columns] += dX[:, :, :, tap]                           # (N, P, Q, C)
    dx[...] = unpad(padded, pads)                                              # (N, H, W, C)


def _part(a, g, groups):
    """Group g of the last axis, as a view."""
    width = a.shape[-1] // groups
    return a[..., g * width : (g + 1) * width]


def _matrix(w):
    """The kernels as a matrix: (R, S, C/G, K/G) -> (R*S*C/G, K/G)."""
    return w.reshape(-1, w.shape[-1])


def conv_forward(x, w, y, *, stride, pads, groups=1, epilogue=(None, False), work=None):
    """y (N, P, Q, K) from x (N, H, W, C) and w (R, S, C/G, K); epilogue = (bias (K,) or None, apply ReLU)."""
    bias, relu = epilogue
    for g in range(groups):
        X = im2col(_part(x, g, groups), w.shape[:2], stride, pads, y.shape[1:3], work)
        Y = X @ _matrix(_part(w, g, groups))                                   # (N*P*Q, K/G)
        _part(y, g, groups)[...] = Y.reshape(*y.shape[:3], -1)                 # (N, P, Q, K/G)
    if bias is not None:
        y += bias
    if relu:
        np.maximum(y, 0, out=y)


# Both backwards follow from Y[a,k] = sum_m X[a,m] W[m,k], with a = (n, p, q) and m = (r, s, c):
#
#     dL/dX[a,m] = sum_k dY[a,k] dY[a,k]/dX[a,m] = sum_k dY[a,k] W[m,k]       dX = dY W'      then dx = col2im(dX)
#     dL/dW[m,k] = sum_a dY[a,k] X[a,m]                                       dW = X' dY      (dw adds up over calls)
#
# where ' is the transpose. Groups share nothing, so each has its own pair of products. The bias is added to every
# pixel, hence db[k] = sum over n, p, q of dy (epilogue_backward).


def conv_backward_data(dy, w, dx, *, stride, pads, groups=1, work=None):
    """dx (N, H, W, C), overwritten, from dy (N, P, Q, K) and w (R, S, C/G, K)."""
    N, P, Q, _ = dy.shape
    R, S, D, _ = w.shape                                                       # D = C/G
    for g in range(groups):
        dY = _part(dy, g, groups).reshape(N * P * Q, -1)                       # (N*P*Q, K/G)
        dX = scratch(work, (N * P * Q, R * S * D), dy.dtype)
        np.matmul(dY, _matrix(_part(w, g, groups)).T, out=dX)
        col2im(dX, _part(dx, g, groups), (R, S), stride, pads, (P, Q))


def conv_backward_weights(x, dy, dw, *, stride, pads, groups=1, add=True, work=None):
    """dw (R, S, C/G, K) += from x (N, H, W, C) and dy (N, P, Q, K); without `add`, dw =, whatever it held."""
    N, P, Q, _ = dy.shape
    for g in range(groups):
        X = im2col(_part(x, g, groups), dw.shape[:2], stride, pads, (P, Q), work)
        dW = X.T @ _part(dy, g, groups).reshape(N * P * Q, -1)                 # (R*S*C/G, K/G)
        part, dW = _part(dw, g, groups), dW.reshape(*dw.shape[:3], -1)         # (R, S, C/G, K/G)
        part[...] = part + dW if add else dW


def conv_work(x_shape, w_shape, dtype, *, stride, pads, groups=1):
    """Bytes of work space for any of the three: one group's im2col matrix."""
    (N, H, W, _), (R, S, D, _), (u, v) = x_shape, w_shape, stride              # D = C/G
    top, left, bottom, right = pads
    P, Q = (top + H + bottom - R) // u + 1, (left + W + right - S) // v + 1
    return N * P * Q * R * S * D * np.dtype(dtype).itemsize


def conv_algorithm(x_shape, w_shape, dtype, *, stride, pads, groups=1):
    """The name of the algorithm."""
    return "im2col"
