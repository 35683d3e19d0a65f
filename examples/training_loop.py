"""The loop: images in, loss, gradients, a step. Runs in seconds and needs no files: python examples/training_loop.py"""
import numpy as np

from minicnn import Builder
from minicnn.data.procedural import procedural_sets
from minicnn.train import SGD

train, test, _ = procedural_sets((800, 200, 0), size=32)                     # small pictures of four patterns
x, test_x = (np.stack([part.read(i) for i in range(len(part))]).astype("float32") / 64 - 2 for part in (train, test))
b = Builder((32, 32, 3))
b.conv("conv1", 16, 5, padding=2)
b.relu()
b.maxpool("pool1", 3, stride=2)
b.flatten()
b.linear("fc2", 4)
b.loss()
net = b.net(seed=0)
sgd = SGD(net, lr=0.01, momentum=0.9, decay=0.0005)
for epoch in range(10):
    for ids in np.random.default_rng(epoch).permutation(800).reshape(-1, 32):
        loss = net.loss(x[ids], train.labels[ids], sample_ids=ids, epoch=epoch)
        net.backward()
        sgd.step()
    accuracy = (net(test_x).argmax(axis=1) == test.labels).mean()
    print(f"epoch {epoch + 1}   loss {loss:.3f}   test accuracy {accuracy:.1%}")
