"""`python -m underdog.rl.cli` is `underdog`."""

from __future__ import annotations

from .main import main

main()
