"""Is the Hugging Face hub within reach? Where it is not, its libraries are told so before they try for a minute."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from .config import Config

HUB = "https://huggingface.co"
SECONDS = 3.0
"""Longest wait for a connection."""
OFFLINE = "HF_HUB_OFFLINE"
"""The variable by which the hub's libraries look into their cache alone."""


def settle(config: Config) -> bool:
    """Switch the hub's libraries to their cache where a recipe needs the hub and it cannot be reached.

    They read the variable when they are first imported: nothing is done after that. Returns whether it was set here.
    """
    asked = OFFLINE in os.environ or "huggingface_hub" in sys.modules or getproxies()
    if asked or not _needs_hub(config) or _answers(os.environ.get("HF_ENDPOINT", HUB)):
        return False
    os.environ[OFFLINE] = "1"
    return True


def _needs_hub(config: Config) -> bool:
    """Whether the model or the data are named by an id rather than by a place on this machine."""
    ids = [config.model, getattr(config.data, "id", None)]
    return any(name and ":" not in name and not Path(name).expanduser().exists() for name in ids)


def _answers(address: str) -> bool:
    place = urlparse(address)
    try:
        port = place.port or (80 if place.scheme == "http" else 443)
        socket.create_connection((place.hostname or "", port), timeout=SECONDS).close()
    except OSError:
        return False
    return True
