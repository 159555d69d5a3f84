"""A long, narrow network between the two ends: every byte arrives half a round trip later, and no faster than the link's rate,
which all connections share. Unlike a real one it loses nothing and has no queue of its own beyond one round trip.

The kernel's TCP works on both sides of it only over the loopback: what is measured is how often an end waits for the other.
"""
import collections
import contextlib
import socket
import threading
import time

CHUNK = 64 << 10


class Link:
    """`with Link(port, delay, rate) as link`: stands where a Host does (`link.url(disk)`). `delay` is one way, in seconds; `rate` is
    bytes per second each way, 0 for unlimited."""

    def __init__(self, target_port, delay=0.0, rate=0):
        self.target_port, self.delay, self.rate = target_port, delay, rate
        self.lock, self.free_at = threading.Lock(), {True: 0.0, False: 0.0}  # by way: when the link can take the next byte
        self.room = max(4 * CHUNK, int(rate * 2 * delay) + 4 * CHUNK) if rate else 1 << 30
        self.sockets = []

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()
        return self

    def __exit__(self, *_):
        # Closing alone does not wake an accept(): it would go on, and take what is meant for the next listener.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.acceptor.join()
        self.listener.close()
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def url(self, disk):
        return f"backhaul://127.0.0.1:{self.port}/{disk}"

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                host = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                return
            for end in (client, host):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets += [client, host]
            for source, target, way in ((client, host, True), (host, client, False)):
                queue, news = collections.deque(), threading.Condition()
                threading.Thread(target=self._read, args=(source, way, queue, news), daemon=True).start()
                threading.Thread(target=self._write, args=(target, queue, news), daemon=True).start()

    def _arrival(self, way, size):
        """When the last of these bytes arrives if they are sent as soon as the link is free."""
        now = time.monotonic()
        if not self.rate:
            return now + self.delay
        with self.lock:
            self.free_at[way] = max(self.free_at[way], now) + size / self.rate
            return self.free_at[way] + self.delay

    def _read(self, source, way, queue, news):
        while True:
            try:
                data = source.recv(CHUNK)
            except OSError:
                data = b""
            due = self._arrival(way, len(data))
            with news:
                queue.append((due, data))
                news.notify()
                while data and sum(len(waiting) for _, waiting in queue) > self.room:
                    news.wait()
            if not data:
                return

    def _write(self, target, queue, news):
        while True:
            with news:
                while not queue:
                    news.wait()
                due, data = queue[0]
            time.sleep(max(0.0, due - time.monotonic()))
            with news:
                queue.popleft()
                news.notify()
            try:
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
            except OSError:
                return
