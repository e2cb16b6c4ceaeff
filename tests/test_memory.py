"""Memory that blocks took is at hand while a job is at work, and the system's again when it is done."""

from __future__ import annotations

import subprocess
import sys

# Two threads hold blocks and let them go. Told: bytes resident before, with them, without, given back.
CODE = """
import os, threading
from app import memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def work():
    held.append([bytes([1]) * (9 << 20) for _ in range(10)])
    ready.wait()
    ready.wait()

memory.tune()
found, held, ready = [resident()], [], threading.Barrier(3)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
ready.wait()
found.append(resident())
held.clear()
found.append(resident())
memory.give_back()
found.append(resident())
ready.wait()
print(*found)
"""


def test_blocks_of_all_threads_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    before, held, freed, given_back = map(int, done.stdout.split())
    assert held - before > 150_000_000
    assert freed - before > 20_000_000  # kept for the next blocks
    assert given_back - before < 10_000_000
