"""The process that draws documents and decodes HEIC and AVIF: the compiled part once more, in an interpreter of its own."""

import os
import re
import sys

from . import _phi3v

# Loads the compiled part by its place, whatever else is called phi3v there. Ctrl-C is for who asks.
_CODE = """
import signal, sys
from importlib.util import module_from_spec, spec_from_file_location
signal.signal(signal.SIGINT, signal.SIG_DFL)
spec = spec_from_file_location("phi3v._phi3v", sys.argv[1])
module = module_from_spec(spec)
spec.loader.exec_module(module)
sys.exit(module.main(["phi3v", *sys.argv[2:]]))
"""
# How interpreters are called: another program must not be started for one.
_NAMES = re.compile(r"(python|pypy)w?[\d.]*([dt]|-dbg)?w?(\.exe)?", re.IGNORECASE)
# Whether the interpreter of a virtual environment starts another, as its child, and only waits for it.
_IS_LAUNCHER = os.name == "nt" and sys.prefix != sys.base_prefix


def interpreter() -> str | None:
    """An interpreter of Python that can load the compiled part; None where none is known.

    `sys.executable` is one, but for programs that have Python within: such as a server's, or one that was frozen.
    """
    if getattr(sys, "frozen", False):
        return None
    if sys.executable and _NAMES.fullmatch(os.path.basename(sys.executable)):
        base = getattr(sys, "_base_executable", None)
        is_own = os.path.normcase(sys.executable).startswith(os.path.normcase(os.path.join(sys.prefix, "")))
        # what is watched is the memory of the process that is started
        return base if _IS_LAUNCHER and is_own and base and os.access(base, os.X_OK) else sys.executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for prefix in (sys.prefix, sys.base_prefix):
        for place in (("bin", version), ("python.exe",), ("Scripts", "python.exe")):
            path = os.path.join(prefix, *place)
            if os.access(path, os.X_OK):
                return path
    return None


def tell() -> None:
    """Tells the compiled part how it is started."""
    python = interpreter()
    # neither the folder it is started in nor the environment's own start-up code
    _phi3v.draw_by(None if python is None else [python, "-P", "-S", "-c", _CODE, os.path.abspath(_phi3v.__file__)])
