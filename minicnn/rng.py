"""Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

A random number is a pure function of its use: key = seed, counter = (sample id, unit, epoch, purpose). So the mask of a
dropout layer or the crop of an image does not depend on threads, on the rest of the batch, on the number of devices, or
on whether a run was interrupted. Every backend produces the same integers and the same uniforms; normals are drawn
here, on the host, because logarithms and cosines differ in the last bit between machines.
"""

from __future__ import annotations

import zlib

import numpy as np

M0, M1 = 0xD2511F53, 0xCD9E8D57        # multipliers of the two multiply-xor halves
W0, W1 = 0x9E3779B9, 0xBB67AE85        # increments of the key in each of the ten rounds


def philox4x32(c0, c1, c2, c3, k0: int, k1: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ten rounds of Philox on counters given as four broadcastable uint32 arrays; returns four uint32 arrays."""
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, np.uint32) for c in (c0, c1, c2, c3)))
    for _ in range(10):
        product0 = c0.astype(np.uint64) * np.uint64(M0)
        product1 = c2.astype(np.uint64) * np.uint64(M1)
        high0, low0 = (product0 >> np.uint64(32)).astype(np.uint32), product0.astype(np.uint32)
        high1, low1 = (product1 >> np.uint64(32)).astype(np.uint32), product1.astype(np.uint32)
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint32(k0), low1, high0 ^ c3 ^ np.uint32(k1), low0
        k0, k1 = (k0 + W0) & 0xFFFFFFFF, (k1 + W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def purpose_id(name: str) -> int:
    """A 32-bit id of the purpose of random numbers: CRC-32 of a layer's name, "crop", "flip" ..."""
    return zlib.crc32(name.encode())


def key_words(seed: int) -> tuple[int, int]:
    """The two 32-bit words of the key."""
    return seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF


def random_words(seed: int, purpose: int, epoch: int, sample_ids: np.ndarray, units: int) -> np.ndarray:
    """uint32 (N, units): unit u of a sample is lane u % 4 of the counter (sample id, u // 4, epoch, purpose)."""
    ids = np.asarray(sample_ids, np.uint32).reshape(-1, 1)                                   # (N, 1)
    blocks = np.arange(-(-units // 4), dtype=np.uint32).reshape(1, -1)                       # (1, B)
    lanes = philox4x32(ids, blocks, np.uint32(epoch), np.uint32(purpose), *key_words(seed))
    return np.stack(lanes, axis=-1).reshape(ids.shape[0], -1)[:, :units]                     # (N, B, 4) -> (N, units)


def uniforms(seed: int, purpose: int, epoch: int, sample_ids: np.ndarray, units: int) -> np.ndarray:
    """float32 (N, units), uniform in [0, 1), multiples of 2**-24, so that each is exact in float32."""
    words = random_words(seed, purpose, epoch, sample_ids, units)
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def normals(seed: int, purpose: int, epoch: int, sample_ids: np.ndarray, units: int) -> np.ndarray:
    """float32 (N, units), standard normal, by the Box-Muller transform of pairs of uniforms."""
    u = uniforms(seed, purpose, epoch, sample_ids, 2 * units).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log(1.0 - u[:, 0::2]))                                        # 1 - u is never 0
    return (radius * np.cos(2.0 * np.pi * u[:, 1::2])).astype(np.float32)


def normal_init(seed: int, name: str, shape: tuple[int, ...], std: float, dtype="float32") -> np.ndarray:
    """Weights from N(0, std): NumPy's Philox generator keyed by (seed, name), independent of other layers."""
    generator = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, purpose_id(name)]))
    weights = generator.standard_normal(shape, dtype=np.float32)
    weights *= np.float32(std)
    return weights.astype(dtype, copy=False)


def uniform_init(seed: int, name: str, shape: tuple[int, ...], bound: float, dtype="float32") -> np.ndarray:
    """Weights from U(-bound, bound), keyed as in normal_init."""
    generator = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFFFFFFFFFF, purpose_id(name)]))
    weights = generator.random(shape, dtype=np.float32)
    return ((2 * weights - 1) * np.float32(bound)).astype(dtype, copy=False)
