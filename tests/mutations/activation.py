"""Mistakes in ReLU, LeakyReLU, ClippedReLU, tanh, sigmoid and GELU."""

from __future__ import annotations

import numpy as np

from tests.mutations.mutate import Mutation, afterwards, instead, option


def _density(x):
    return np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)


MUTATIONS = [
    Mutation("relu: everything passes backward", "relu", {
        "relu_backward": instead(lambda y, dy, dx: np.copyto(dx, dy))}),
    Mutation("relu: the wrong side passes", "relu", {
        "relu_backward": instead(lambda y, dy, dx: np.multiply(dy, y <= 0, out=dx))}),
    Mutation("relu: mask taken from dy", "relu", {
        "relu_backward": instead(lambda y, dy, dx: np.multiply(dy, dy > 0, out=dx))}),
    Mutation("relu: dy forgotten", "relu", {
        "relu_backward": instead(lambda y, dy, dx: np.copyto(dx, y > 0))}),
    Mutation("relu: clipped at 1 in forward", "relu", {
        "relu_forward": afterwards(lambda x, y: np.minimum(y, 1, out=y))}),
    Mutation("relu: absolute value in forward", "relu", {"relu_forward": instead(lambda x, y: np.abs(x, out=y))}),
    Mutation("leaky relu: slope forgotten backward", "leaky_relu", {
        "leaky_relu_backward": instead(lambda y, dy, dx, *, slope: np.multiply(dy, y > 0, out=dx))}),
    Mutation("leaky relu: slope on the wrong side backward", "leaky_relu", {
        "leaky_relu_backward": instead(lambda y, dy, dx, *, slope: np.copyto(dx, np.where(y > 0, slope * dy, dy)))}),
    Mutation("leaky relu: mask taken from dy", "leaky_relu", {
        "leaky_relu_backward": instead(lambda y, dy, dx, *, slope: np.copyto(dx, np.where(dy > 0, dy, slope * dy)))}),
    Mutation("leaky relu: the paper's slope whatever is asked for", "leaky_relu", {
        "leaky_relu_forward": option("slope", lambda slope: 0.01)}),
    Mutation("leaky relu: slope subtracted in forward", "leaky_relu", {
        "leaky_relu_forward": option("slope", lambda slope: -slope)}),
    Mutation("clipped relu: no ceiling in forward", "clipped_relu", {
        "clipped_relu_forward": instead(lambda x, y, *, ceiling: np.maximum(x, 0, out=y))}),
    Mutation("clipped relu: six whatever is asked for", "clipped_relu", {
        "clipped_relu_forward": option("ceiling", lambda ceiling: 6.0),
        "clipped_relu_backward": option("ceiling", lambda ceiling: 6.0)}, True),
    Mutation("clipped relu: the gradient passes above the ceiling", "clipped_relu", {
        "clipped_relu_backward": instead(lambda y, dy, dx, *, ceiling: np.multiply(dy, y > 0, out=dx))}),
    Mutation("clipped relu: the gradient passes below zero", "clipped_relu", {
        "clipped_relu_backward": instead(lambda y, dy, dx, *, ceiling: np.multiply(dy, y < ceiling, out=dx))}),
    Mutation("tanh: 1 - y", "tanh", {"tanh_backward": instead(lambda y, dy, dx: np.multiply(dy, 1 - y, out=dx))}),
    Mutation("tanh: 1 - tanh(y)^2", "tanh", {
        "tanh_backward": instead(lambda y, dy, dx: np.multiply(dy, 1 - np.tanh(y)**2, out=dx))}),
    Mutation("tanh: 1 - x^2 of the input", "tanh", {
        "tanh_backward": instead(lambda y, dy, dx: np.multiply(dy, 1 - np.arctanh(y)**2, out=dx))}),
    Mutation("tanh: 1 + y^2", "tanh", {
        "tanh_backward": instead(lambda y, dy, dx: np.multiply(dy, 1 + y**2, out=dx))}),
    Mutation("tanh: a logistic function", "tanh", {
        "tanh_forward": instead(lambda x, y: np.copyto(y, 1 / (1 + np.exp(-x))))}),
    Mutation("sigmoid: y forgotten backward", "sigmoid", {
        "sigmoid_backward": instead(lambda y, dy, dx: np.multiply(dy, 1 - y, out=dx))}),
    Mutation("sigmoid: 1 - y forgotten backward", "sigmoid", {
        "sigmoid_backward": instead(lambda y, dy, dx: np.multiply(dy, y, out=dx))}),
    Mutation("sigmoid: tanh's derivative", "sigmoid", {
        "sigmoid_backward": instead(lambda y, dy, dx: np.multiply(dy, 1 - y**2, out=dx))}),
    Mutation("sigmoid: dy forgotten", "sigmoid", {
        "sigmoid_backward": instead(lambda y, dy, dx: np.copyto(dx, y * (1 - y)))}),
    Mutation("sigmoid: of -x in forward", "sigmoid", {
        "sigmoid_forward": afterwards(lambda x, y: np.subtract(1, y, out=y))}),
    Mutation("sigmoid: of -x for x < 0", "sigmoid", {
        "sigmoid_forward": afterwards(lambda x, y: np.maximum(y, 1 - y, out=y))}),
    Mutation("sigmoid: of 1.702 x", "sigmoid", {
        "sigmoid_forward": instead(lambda x, y: np.copyto(y, 1 / (1 + np.exp(-1.702 * x))))}),
    Mutation("gelu: the density's term forgotten", "gelu", {
        "gelu_backward": afterwards(lambda x, dy, dx: np.subtract(dx, dy * x * _density(x), out=dx))}),
    Mutation("gelu: the density without x", "gelu", {
        "gelu_backward": afterwards(lambda x, dy, dx: np.add(dx, dy * (1 - x) * _density(x), out=dx))}),
    Mutation("gelu: dy forgotten", "gelu", {
        "gelu_backward": afterwards(lambda x, dy, dx: np.divide(dx, dy, out=dx))}),
    Mutation("gelu: the derivative at y", "gelu", {
        "gelu_backward": instead(lambda x, dy, dx: np.multiply(dy, 0.5 + x * _density(x), out=dx))}),
    Mutation("gelu: of 1.702 x by the logistic function, in forward alone", "gelu", {
        "gelu_forward": instead(lambda x, y: np.copyto(y, x / (1 + np.exp(-1.702 * x))))}),
]
