"""Where models come from, as every `from_pretrained` is told."""

import os
from typing import Any

from .._errors import OptionError, UnsupportedError

# What decides how transformers computes and loads, and has no meaning here.
_IGNORED = {
    "_attn_implementation",
    "attn_implementation",
    "device_map",
    "low_cpu_mem_usage",
    "trust_remote_code",
    "use_fast",
    "use_safetensors",
}


def hub(model_id: str, options: dict[str, Any]) -> dict[str, Any]:
    """Takes `revision`, `token`, `cache_dir` and `local_files_only` out of the options of a `from_pretrained`, for the
    compiled part.

    Raises:
        UnsupportedError: For another option, unless it changes nothing here.
    """
    revision, cache_dir = options.pop("revision", None), options.pop("cache_dir", None)
    token = options.pop("token", None)
    local = options.pop("local_files_only", None)
    _refuse(options)
    if revision is not None and not isinstance(revision, str):
        raise TypeError(f"revision must be a str, not {type(revision).__name__}")
    if revision is not None and "@" in model_id and not os.path.exists(model_id):
        raise OptionError(f"{model_id} names a revision, and revision is {revision}", "leave one of them out")
    if not isinstance(token, (str, bool, type(None))):
        raise TypeError(f"token must be a str or a bool, not {type(token).__name__}")
    if not isinstance(local, (bool, type(None))):
        raise TypeError(f"local_files_only must be a bool, not {type(local).__name__}")
    asked = {
        "revision": revision,
        # True is the token of the environment, False is none
        "token": {True: None, False: ""}[token] if isinstance(token, bool) else token,
        "cache_dir": None if cache_dir is None else os.path.expanduser(os.fspath(cache_dir)),
        "local_files_only": bool(local),
    }
    return {name: value for name, value in asked.items() if value is not None}


def _refuse(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if name not in _IGNORED and value is not None and value is not False:
            raise UnsupportedError(
                f"from_pretrained has no {name}={value!r}",
                'leave it out; quant="q4" or quant="q8" quantizes' if "bit" in name or "quant" in name else None,
            )
