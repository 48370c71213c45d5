"""Numbers that look random, and are the same on every machine and with every library: a raw bit generator's."""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def uniform(name: str, *shape: int) -> NDArray[np.float32]:
    """In [-1, 1), multiples of 2**-23: a function of name and shape alone."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    raw = np.random.Philox(key=key).random_raw(int(np.prod(shape)))
    values: NDArray[np.float32] = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - 1
    return values.reshape(shape)


def network_weights(shapes: Mapping[str, tuple[int, ...]], gain: float) -> dict[str, NDArray[np.float32]]:
    """For all tensors of a network: so large that signals neither die nor grow without bounds; codes of length 1."""
    return {name: _tensor(name, shape, gain) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], gain: float) -> NDArray[np.float32]:
    values = uniform(name, *shape)
    if name.endswith((".embed", ".embed_avg")):
        unit: NDArray[np.float32] = values / np.linalg.norm(values, axis=-1, keepdims=True)
        return unit
    if name.endswith((".initted", ".cluster_size")):
        return np.ones(shape, np.float32)
    if name.endswith("bias"):
        return 0.1 * values
    if len(shape) == 1:  # of a normalisation
        return 1 + 0.1 * values
    return np.float32(gain * np.sqrt(3 / np.prod(shape[1:]))) * values
