"""Arrays as they were asked for: numpy's, or torch's where torch is there."""

import sys
from typing import Any

from .._errors import UnsupportedError


def numpy() -> Any:
    """numpy, which this surface cannot do without."""
    try:
        import numpy
    except ImportError as error:
        raise UnsupportedError("phi3v.transformers needs numpy", "pip install numpy") from error
    return numpy


def kind(return_tensors: Any) -> str:
    """"np" or "pt", of what was asked for."""
    name = str(getattr(return_tensors, "value", return_tensors))
    if name not in ("pt", "np"):
        raise UnsupportedError(f"return_tensors is {name}, it must be pt or np")
    return name


def array(values: Any, return_tensors: str) -> Any:
    """A numpy array as it was asked for: torch's on the same memory, or itself."""
    if return_tensors == "pt":
        try:
            import torch
        except ImportError:
            return values
        return torch.from_numpy(values)
    return values


def is_torch(values: Any) -> bool:
    """Whether an array is torch's."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(values, torch.Tensor)


def to_numpy(values: Any) -> Any:
    """An array of numpy's or torch's, or lists of numbers, as numpy's."""
    if is_torch(values):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return numpy().asarray(values)


def ids(values: Any) -> list[int]:
    """One list of ids of whatever holds one."""
    if isinstance(values, int):
        return [values]
    if isinstance(values, list) and all(isinstance(value, int) for value in values):
        return values
    found = to_numpy(values)
    if found.ndim == 2 and found.shape[0] == 1:
        found = found[0]
    if found.ndim > 1:
        raise ValueError(f"ids of shape {list(found.shape)} are several lists, use batch_decode")
    return [int(value) for value in found.reshape(-1)]
