"""`underdog` as a study starts it: a command that dies with its parent, however that dies.

The study holds the other end of our stdin. When it is closed, whatever closed it (SIGKILL too), nobody waits for this
training any more; it must not go on beside the one that a restarted study starts.
"""

from __future__ import annotations

import os
import signal
import threading


def tie_to_parent() -> None:
    """End this process's group at once when stdin is closed by its other end; stdin itself is empty from then on."""
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)

    def watch() -> None:
        while os.read(pipe, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    tie_to_parent()
    from ..cli.main import main

    main()
