"""Say on what machine and with which versions something was made; no host names, no paths."""

import os
import platform
import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path


def machine() -> str:
    """Processor, the cores that this process may use, and its GPU if there is one; no host name."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.+)", info.read_text()) if info.is_file() else None
    model = named[1] if named else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch = sys.modules.get("torch")  # to import it takes longer than a small notebook
    gpu = f"; {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else ""
    return f"{model}, {cores} core{'s' * (cores != 1)}{gpu}"


def versions() -> dict[str, str]:
    """Versions of Python and of all that david requires itself."""
    found = {"python": platform.python_version()}
    for requirement in requires("david") or []:
        if "extra ==" not in requirement:
            name = re.match(r"[\w-]+", requirement)[0]
            with suppress(PackageNotFoundError):  # it is for another platform
                found[name] = version(name).split("+")[0]
    return found
