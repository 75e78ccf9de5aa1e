"""An interruption waits for the end of the block, and is not lost."""

from __future__ import annotations

import signal

import pytest

from underdog.rl.runs.interrupts import uninterrupted


def test_ctrl_c_takes_effect_when_the_block_has_ended() -> None:
    done = []

    def interrupted() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with uninterrupted():
        pass
