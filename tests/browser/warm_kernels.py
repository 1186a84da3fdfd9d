"""Kernels that start warm: one process imports what the panels need, and forks for every notebook that asks.

Each kernel is a process with a namespace of its own, as any is; what it does without are the seconds that the imports take.
`warm_kernels.py SOCKET` waits for notebooks at a listening socket that it inherits, by the number of its file;
`warm_kernels.py PORT CONNECTION_FILE` is what Jupyter starts, and lives as long as its kernel.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
import traceback

_PIPELINE = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"
# not workbench itself: that comes fresh in every kernel
_SLOW = ("ipykernel.kernelapp", "ipywidgets", "anywidget", "pandas", "pydantic.main", _PIPELINE)


def serve(inherited: int) -> None:
    """Fork a kernel for everyone who asks at this socket; those who ask before all is imported wait."""
    with socket.socket(fileno=inherited) as listening:
        gc.disable()
        for library in _SLOW:
            importlib.import_module(library)
        gc.enable()
        gc.freeze()  # no kernel's collector goes through all of that again, and copies the memory it lies in
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the kernels
        while True:
            asked, _ = listening.accept()
            with asked:
                if os.fork() == 0:
                    listening.close()
                    try:
                        _be_kernel(asked)
                    except BaseException:  # such as a port that another process has taken: Jupyter sees that it died, and asks anew
                        traceback.print_exc()
                    finally:  # to take apart what was imported takes seconds, and would wait for a heart that beats in a thread
                        os._exit(1)


def ask(port: int, connection_file: str) -> None:
    """Have a kernel forked, and stay until it ends."""
    with socket.create_connection(("127.0.0.1", port)) as kernel:
        wanted = {"file": connection_file, "folder": os.getcwd(), "environment": dict(os.environ)}
        kernel.sendall(json.dumps(wanted).encode() + b"\n")
        kernel.recv(1)


def _be_kernel(asked: socket.socket) -> None:
    from ipykernel.kernelapp import IPKernelApp

    wanted = json.loads(asked.makefile().readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    threading.Thread(target=lambda: asked.recv(1) or os._exit(1), daemon=True).start()  # whom Jupyter started is gone: so is the kernel
    IPKernelApp.launch_instance(["-f", wanted["file"]])


if __name__ == "__main__":
    number, *connection_file = sys.argv[1:]
    if connection_file:
        ask(int(number), *connection_file)
    else:
        serve(int(number))
