"""A network between a client and a server of this machine that drops connections, and now and then is not there."""

import random
import socket
import threading
import time
from collections import Counter

CHUNK_BYTES = 2**16


class DroppingNetwork:
    """Passes bytes on from a port of its own to ``port``, and loses some connections on purpose.

    What is cut on its way there was never asked for; what is cut on its way back was done, and nobody hears of it.
    """

    def __init__(self, port: int, *, lost: float, outage_s: float, every_s: float, seed: int = 0) -> None:
        """
        Args:
            port: where the server listens.
            lost: share of the chunks, in either direction, with which their connection ends.
            outage_s: how long nothing gets through, every ``every_s`` seconds.
            every_s: from the start of one outage to that of the next.
            seed: of the choice which chunks are lost.
        """
        self.dropped: Counter[str] = Counter()
        self._target, self._lost, self._outage_s, self._every_s = port, lost, outage_s, every_s
        self._rng, self._choice = random.Random(seed), threading.Lock()
        self._began = time.monotonic()
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._is_out():
                self.dropped["refused"] += 1
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._target))
            for source, sink, way in ((client, server, "request"), (server, client, "answer")):
                threading.Thread(target=self._pass_on, args=(source, sink, way), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        try:
            while chunk := source.recv(CHUNK_BYTES):
                if self._is_out() or self._chosen():
                    self.dropped[way] += 1
                    break
                sink.sendall(chunk)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                end.close()

    def _chosen(self) -> bool:
        with self._choice:
            return self._rng.random() < self._lost

    def _is_out(self) -> bool:
        return (time.monotonic() - self._began) % self._every_s > self._every_s - self._outage_s
