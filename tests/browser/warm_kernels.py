"""Kernels that start warm: one process imports what the panels need, and forks for every notebook that asks.

Each kernel is a process with a namespace of its own, as any is; what it does without are the seconds that the imports take.
`warm_kernels.py PORT` waits for notebooks; `warm_kernels.py PORT CONNECTION_FILE` is what Jupyter starts, and lives as long as its kernel.
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

_PIPELINE = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion"
# not workbench itself: that comes fresh in every kernel
_SLOW = ("ipykernel.kernelapp", "ipywidgets", "anywidget", "pandas", "pydantic.main", _PIPELINE)


def serve(port: int) -> None:
    """Fork a kernel for everyone who asks at this port; those who ask before all is imported wait."""
    with socket.create_server(("127.0.0.1", port)) as listening:
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
                    _be_kernel(asked)


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
    os._exit(0)  # taking apart what was imported takes seconds


if __name__ == "__main__":
    port, *connection_file = sys.argv[1:]
    if connection_file:
        ask(int(port), *connection_file)
    else:
        serve(int(port))
