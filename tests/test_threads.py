"""The threads of a process take turns, and a process that is forked meanwhile does not wait for them."""

import subprocess
import sys
import textwrap
import threading

import pytest
from semipyro.threads import ONE_AT_A_TIME

FORK = """
import os, threading, pyro
from pyro.poutine import runtime
from semipyro.threads import ONE_AT_A_TIME

held, done = threading.Event(), threading.Event()

def hold():
    with ONE_AT_A_TIME, pyro.poutine.trace():
        held.set()
        done.wait()

other = threading.Thread(target=hold)
other.start()
held.wait()
child = os.fork()
if not child:
    with ONE_AT_A_TIME, ONE_AT_A_TIME:
        os._exit(0 if not runtime._PYRO_STACK else 1)
_, status = os.waitpid(child, 0)
done.set()
other.join()
with ONE_AT_A_TIME, pyro.poutine.trace():  # the thread that holds the lock forks: its child holds it, too
    child = os.fork()
    if not child:
        waits = threading.Thread(target=ONE_AT_A_TIME.__enter__, daemon=True)
        waits.start()
        waits.join(0.2)
        os._exit(0 if waits.is_alive() and runtime._PYRO_STACK else 1)
    print(status, os.waitpid(child, 0)[1])
"""


def run(code):
    """What a fresh Python prints; it has a minute."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)]  # forking with threads
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_threads_take_turns_and_one_can_hold_the_lock_twice():
    order = []

    def other():
        with ONE_AT_A_TIME:
            order.append("other")

    with ONE_AT_A_TIME, ONE_AT_A_TIME:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


@pytest.mark.reliability
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have():
    assert run(FORK) == "0 0\n"
