"""Graceful shutdown: which signals are handled, what the first and the second of each do."""

from __future__ import annotations

import signal

import pytest

from minicnn.train.watch.interrupt import Interrupt, unwinding

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers():
    """Handlers that record what was not handled, in place of those that would end the tests."""
    missed, before = [], {number: signal.signal(number, lambda number, _: missed.append(number)) for number in SIGNALS}
    yield missed
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_asks_for_a_shutdown(number, handlers, capfd):
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert not interrupt.requested
        signal.raise_signal(number)
        assert interrupt.requested and handlers == []
    assert "stopping after this step, then saving" in capfd.readouterr().err
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once_and_other_signals_do_not():
    with Interrupt(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_stops_at_once_where_there_is_nothing_to_save(number):
    with Interrupt(at_once=True) as interrupt:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        interrupt.at_once = False
        signal.raise_signal(number)
        assert interrupt.requested


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)
    with Interrupt() as interrupt:
        signal.raise_signal(number)
        assert not interrupt.requested and signal.getsignal(number) is signal.SIG_IGN


@pytest.mark.parametrize("number", SIGNALS[1:])
def test_signals_that_would_end_the_process_unwind_it(number):
    signal.signal(number, signal.SIG_DFL)
    with unwinding(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)
    assert signal.getsignal(number) is signal.SIG_DFL
