"""Every operation again, as slow and literal as its formula: one loop per index, one element at a time.

The reference is tested against it. It shares no code with the reference or minicnn/rng.py: even Philox is repeated.
"""

from __future__ import annotations

import math

import numpy as np


def conv(x, w, bias, size, stride, pads, groups):
    (N, H, W, _), (R, S, D, K), (P, Q) = x.shape, w.shape, size
    y = np.zeros((N, P, Q, K))
    for n, p, q, k in np.ndindex(N, P, Q, K):
        first = (k // (K // groups)) * D                       # first input channel of k's group
        y[n, p, q, k] = bias[k]
        for r, s, c in np.ndindex(R, S, D):
            h, i = p * stride[0] + r - pads[0], q * stride[1] + s - pads[1]
            if 0 <= h < H and 0 <= i < W:
                y[n, p, q, k] += x[n, h, i, first + c] * w[r, s, c, k]
    return y


def linear(x, w, bias):
    y = np.zeros((x.shape[0], w.shape[1]))
    for n, k in np.ndindex(y.shape):
        y[n, k] = bias[k] + sum(x[n, c] * w[c, k] for c in range(x.shape[1]))
    return y


def _window(shape, p, q, kernel, stride, pads):
    """(index in the window, row, column) of the cells of window (p, q) that lie inside the image."""
    for r, s in np.ndindex(*kernel):
        h, i = p * stride[0] + r - pads[0], q * stride[1] + s - pads[1]
        if 0 <= h < shape[1] and 0 <= i < shape[2]:
            yield r * kernel[1] + s, h, i


def maxpool(x, size, kernel, stride, pads):
    y = np.empty((x.shape[0], *size, x.shape[3]))
    argmax = np.empty(y.shape, np.uint8)
    for n, p, q, c in np.ndindex(y.shape):
        cells = [(x[n, h, i, c], index) for index, h, i in _window(x.shape, p, q, kernel, stride, pads)]
        y[n, p, q, c] = max(value for value, _ in cells)
        argmax[n, p, q, c] = next(index for value, index in cells if value == y[n, p, q, c])
    return y, argmax


def avgpool(x, size, kernel, stride, pads, counted):
    y, (top, left, bottom, right) = np.empty((x.shape[0], *size, x.shape[3])), counted
    for n, p, q, c in np.ndindex(y.shape):
        cells = [x[n, h, i, c] for _, h, i in _window(x.shape, p, q, kernel, stride, pads)]
        count = 0
        for r, s in np.ndindex(*kernel):
            h, i = p * stride[0] + r - pads[0], q * stride[1] + s - pads[1]
            count += -top <= h < x.shape[1] + bottom and -left <= i < x.shape[2] + right
        y[n, p, q, c] = sum(cells) / count
    return y


def global_avgpool(x):
    y = np.zeros((x.shape[0], x.shape[3]))
    for n, h, w, c in np.ndindex(x.shape):
        y[n, c] += x[n, h, w, c] / (x.shape[1] * x.shape[2])
    return y


def lrn(x, n, k, alpha, beta, groups):
    y, width = np.empty(x.shape), x.shape[3] // groups
    for b, h, w, i in np.ndindex(x.shape):
        near = [j for j in range(x.shape[3]) if abs(j - i) <= n // 2 and j // width == i // width]
        y[b, h, w, i] = x[b, h, w, i] / (k + alpha * sum(x[b, h, w, j] ** 2 for j in near)) ** beta
    return y


def lrn_within(x, n, k, alpha, beta):
    y = np.empty(x.shape)
    _, H, W, _ = x.shape
    for b, h, w, c in np.ndindex(x.shape):
        near = [(i, j) for i in range(H) for j in range(W) if abs(i - h) <= n // 2 and abs(j - w) <= n // 2]
        y[b, h, w, c] = x[b, h, w, c] / (k + alpha * sum(x[b, i, j, c] ** 2 for i, j in near)) ** beta
    return y


def batchnorm(x, w, b, eps):
    y, channels = np.empty(x.shape), x.reshape(-1, x.shape[-1]).T
    for *place, c in np.ndindex(x.shape):
        mean = sum(channels[c]) / len(channels[c])
        var = sum((value - mean) ** 2 for value in channels[c]) / len(channels[c])
        y[(*place, c)] = w[c] * (x[(*place, c)] - mean) / np.sqrt(var + eps) + b[c]
    return y


def philox(counter, key):
    """Philox4x32-10 on plain integers: four words in, four words out."""
    (a, b, c, d), (k0, k1), low = counter, key, 2**32 - 1
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (right >> 32) ^ b ^ k0, right & low, (left >> 32) ^ d ^ k1, left & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return a, b, c, d


def uniform(seed, purpose, epoch, sample, unit):
    """The uniform number of one unit of one sample."""
    words = philox((sample, unit // 4, epoch, purpose), (seed & (2**32 - 1), seed >> 32))
    return (words[unit % 4] >> 8) / 2**24


def dropout(x, rate, scale, seed, purpose, epoch, sample_ids):
    flat = x.reshape(len(x), -1)
    y = np.zeros(flat.shape)
    for n, unit in np.ndindex(flat.shape):
        if uniform(seed, purpose, epoch, int(sample_ids[n]), unit) >= rate:
            y[n, unit] = flat[n, unit] * scale
    return y.reshape(x.shape)


def cross_entropy(x, labels, smoothing=0.0):
    """Probabilities and losses."""
    probs, losses = np.array([[math.exp(v) / sum(math.exp(u) for u in row) for v in row] for row in x]), []
    for row, label in zip(probs, labels, strict=True):
        target = [(1 - smoothing) * (k == label) + smoothing / len(row) for k in range(len(row))]
        losses.append(-sum(t * math.log(p) for t, p in zip(target, row, strict=True)))
    return probs, np.array(losses)


def sgd(w, dw, v, lr, momentum, decay, lr_in_velocity=True, nesterov=False, decoupled=False):
    """New w and v."""
    w, v = w.copy(), v.copy()
    for i in np.ndindex(w.shape):
        g = dw[i] if decoupled else dw[i] + decay * w[i]
        start = w[i] - lr * decay * w[i] if decoupled else w[i]
        if lr_in_velocity:
            v[i] = momentum * v[i] - lr * g
            w[i] = start + (momentum * v[i] - lr * g if nesterov else v[i])
        else:
            v[i] = momentum * v[i] + g
            w[i] = start - lr * (g + momentum * v[i] if nesterov else v[i])
    return w, v


def adam(w, dw, m, v, t, lr, beta1, beta2, eps, decay, decoupled=False):
    """New w, m and v; t: number of this step, from 1."""
    w, m, v = w.copy(), m.copy(), v.copy()
    for i in np.ndindex(w.shape):
        g = dw[i] if decoupled else dw[i] + decay * w[i]
        start = w[i] - lr * decay * w[i] if decoupled else w[i]
        m[i] = beta1 * m[i] + (1 - beta1) * g
        v[i] = beta2 * v[i] + (1 - beta2) * g**2
        w[i] = start - lr * (m[i] / (1 - beta1**t)) / (math.sqrt(v[i] / (1 - beta2**t)) + eps)
    return w, m, v


def augment(images, size, mean, top, left, flip, shift):
    """One image at a time: mean in the image's frame, crop, transpose, mirrors; or mean in the crop's frame, last."""
    result = []
    for n, image in enumerate(images.astype(np.float64)):
        in_image_frame = mean.shape == image.shape
        crop = (image - mean if in_image_frame else image)[top[n] : top[n] + size[0], left[n] : left[n] + size[1]]
        crop = crop.transpose(1, 0, 2) if flip[n] & 4 else crop
        crop = crop[::-1] if flip[n] & 2 else crop
        crop = crop[:, ::-1] if flip[n] & 1 else crop
        result.append((crop if in_image_frame else crop - mean) + shift[n])
    return np.array(result)
