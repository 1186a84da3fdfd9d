"""The start of a program in which an operator takes its time, for tests that interrupt it."""

SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a program started in the background ignores Ctrl-C otherwise
import workbench as wb
from workbench import cli
from workbench.merge import operator
from workbench.tensors import Scope, Weight

@operator(scope=Scope.ELEMENT, keys="base", source="none")
def slow(base: Weight) -> Weight:
    "Takes its time."
    print("working", flush=True)
    time.sleep(0.2)
    return base
"""
