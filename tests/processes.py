"""Processes that begin from one which has loaded everything and does nothing else.

A test's own process has threads by then (pools, codecs, Qt), and a fork of it takes along the
locks that they hold at that moment; a child that needs one waits for ever. So children are forked
from a server of their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

import cloudpickle

_SERVER = get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "simcrop_core.train.launch",
        "simcrop_core.align",
        "simcrop_core.figure",
        "transformers.models.bert.modeling_bert",
        "hypothesis",
        "pytest",
    ]
)


def start(do: Callable[[], object], environ: dict[str, str] | None = None) -> BaseProcess:
    """Begin something, a closure too, in a process of its own.

    Its exit code is 0, 1 with the error on standard error, or negative for a signal.
    """
    wanted = {**os.environ, **(environ or {})}
    process = _SERVER.Process(target=_run, args=(cloudpickle.dumps(do), wanted))
    process.start()
    return process


def _run(pickled: bytes, environ: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    code = 1
    try:
        cloudpickle.loads(pickled)()
        code = 0
    except BaseException as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)
