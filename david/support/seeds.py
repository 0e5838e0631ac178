"""Randomness as an argument: independent, named streams derived from one seed."""

import hashlib

import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on every argument, the same on every machine."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def keep_random_state(device: torch.device):
    """A context after which torch's global random state is as before: that of the CPU, and of ``device`` if a GPU.

    For dropout, which draws from no other.
    """
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for the named stream of ``seed``; streams of different names are independent."""
    return torch.Generator(device).manual_seed(derive(seed, *names))
