"""Decompressing DICOM pixels in processes of their own.

The C++ codecs end the whole process on some damaged images, and hold Python's lock while they
work. So they run in children: a child that dies or hangs costs one refusal, not the session, and
several work at once. Run as ``python -m simcrop_core.io.dicom_codec`` this module is the child.
"""

from __future__ import annotations

import atexit
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import LifoQueue
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

#: A slice takes some 0.03 s; a codec that needs longer than this is caught in damaged bytes.
PATIENCE_S = 60.0
_MOST_CHILDREN = 4
_MEMORY_BYTES = 2**33
_REQUEST, _ANSWER = struct.Struct("<II"), struct.Struct("<cBQ")


class CodecError(Exception):
    """The bytes could not be decompressed: the codec refused, died or hung."""


class _ChildEndedError(CodecError):
    """The child ended instead of answering."""


def decode(encoded: bytes, described: Mapping[str, Any]) -> NDArray[Any]:
    """One compressed frame as (rows, columns).

    Parameters
    ----------
    encoded
        The frame's bytes without DICOM's items.
    described
        ``transfer_syntax`` and what pydicom's decoders need to know: ``rows``, ``columns``,
        ``bits_allocated``, ``bits_stored``, ``pixel_representation``,
        ``photometric_interpretation``.
    """
    import warnings

    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    options = dict(described)
    decoder = get_decoder(UID(options.pop("transfer_syntax")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values, _ = decoder.as_array(
            encapsulate([encoded], has_bot=False),
            raw=True,
            index=0,
            number_of_frames=1,
            samples_per_pixel=1,
            pixel_keyword="PixelData",
            **options,
        )
    return np.asarray(values)


class CodecPool:
    """A few child processes that decompress, started as they are needed and then kept.

    They end with this process, or by `close`.
    """

    def __init__(self, children: int) -> None:
        self.children = children
        self._all: list[subprocess.Popen[bytes]] = []
        self._threads = ThreadPoolExecutor(children, thread_name_prefix="dicom-codec")
        # The last to come back is the first to go: no child is started while one is idle.
        self._idle: LifoQueue[subprocess.Popen[bytes] | None] = LifoQueue()
        for _ in range(children):
            self._idle.put(None)

    def submit(self, encoded: bytes, described: Mapping[str, Any]) -> Future[NDArray[Any]]:
        """`decode` in a child; the future's result raises CodecError, whatever went wrong."""
        return self._threads.submit(self._decode_twice, encoded, described)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for child in self._all:
            child.kill()
            _release(child)

    def _decode_twice(self, encoded: bytes, described: Mapping[str, Any]) -> NDArray[Any]:
        try:
            return self._decode(encoded, described)
        except _ChildEndedError:
            # It may have been ended from outside while it was idle: a fresh one tells.
            return self._decode(encoded, described)

    def _decode(self, encoded: bytes, described: Mapping[str, Any]) -> NDArray[Any]:
        child = self._idle.get()
        try:
            if child is None:
                child = self._start()
            hung = threading.Event()
            watch = threading.Timer(PATIENCE_S, _end, (child, hung))
            watch.start()
            try:
                return _ask(child, encoded, described)
            except (OSError, _ChildEndedError) as e:
                child.kill()
                child.wait()
                if hung.is_set():
                    raise CodecError("The codec took too long") from e
                raise _ChildEndedError("The codec ended") from e
            finally:
                watch.cancel()
        finally:
            if child is not None and child.poll() is not None:
                self._all.remove(child)
                _release(child)
                child = None
            self._idle.put(child)

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            child = subprocess.Popen(
                # -P: the folder that a person happens to work in is no place to import from.
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as e:
            raise CodecError("The codec could not be started") from e
        self._all.append(child)
        return child


def shared_pool() -> CodecPool:
    """The pool of this process, started on first use (a forked process gets its own)."""
    global _shared
    with _lock:
        if _shared is None or _shared[0] != os.getpid():
            pool = CodecPool(min(_MOST_CHILDREN, os.cpu_count() or 1))
            atexit.register(pool.close)
            _shared = (os.getpid(), pool)
        return _shared[1]


_lock = threading.Lock()
_shared: tuple[int, CodecPool] | None = None


def _end(child: subprocess.Popen[bytes], hung: threading.Event) -> None:
    hung.set()
    child.kill()


def _release(child: subprocess.Popen[bytes]) -> None:
    child.wait()
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def _ask(
    child: subprocess.Popen[bytes], encoded: bytes, described: Mapping[str, Any]
) -> NDArray[Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    words = json.dumps(dict(described)).encode()
    child.stdin.write(_REQUEST.pack(len(words), len(encoded)) + words + encoded)
    child.stdin.flush()
    head = child.stdout.read(_ANSWER.size)
    if len(head) < _ANSWER.size:
        raise _ChildEndedError("The codec ended without an answer")
    kind, itemsize, length = _ANSWER.unpack(head)
    if kind not in (b"i", b"u"):
        raise CodecError("The codec refused")
    body = child.stdout.read(length)
    if len(body) < length:
        raise _ChildEndedError("The codec ended within its answer")
    values = np.frombuffer(body, f"{kind.decode()}{itemsize}")
    if values.size != described["rows"] * described["columns"]:
        raise CodecError("The codec gave another number of pixels")
    return values.reshape(described["rows"], described["columns"])


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more: the child's whole work."""
    while len(head := requests.read(_REQUEST.size)) == _REQUEST.size:
        words, size = _REQUEST.unpack(head)
        described = json.loads(requests.read(words))
        encoded = requests.read(size)
        try:
            values = np.ascontiguousarray(decode(encoded, described))
            if values.shape != (described["rows"], described["columns"]):
                raise CodecError("Another size")
            body = values.tobytes()
            answer = _ANSWER.pack(values.dtype.kind.encode(), values.dtype.itemsize, len(body))
        except Exception:
            answer, body = _ANSWER.pack(b"!", 0, 0), b""
        answers.write(answer + body)
        answers.flush()


def _main() -> None:
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Codecs print to the standard output, which is the channel of answers: give them another.
    answers = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    _main()
