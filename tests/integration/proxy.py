"""A TCP proxy that does to the bytes between the two ends what a bad network does: flips a bit, cuts, delays, swallows.

    with Proxy(host.port, rule=lambda number, way: Fault(flip_at=1000)) as proxy:
        ... connect to proxy.port

The rule is asked once for each connection (numbered from 0) and way (TO_HOST, FROM_HOST) and gives a Fault or None. It runs
under the proxy's lock, so it may keep state. What happened can be read from `proxy.flips`, `proxy.cuts` and `proxy.connections`.

`proxy.round_trips` counts dependent round trips over all connections: a chunk towards the host may have been caused by
whatever was delivered to the sender before it was sent, and so on backwards; the longest such chain is counted. It bounds from
above how many times an end can have waited for the other.
"""
import collections
import collections.abc
import dataclasses
import socket
import threading
import time

TO_HOST, FROM_HOST = "to host", "from host"
CHUNK = 256 << 10


@dataclasses.dataclass
class Fault:
    """Byte numbers count from the connection's start, in the fault's way only."""
    flip_at: int | None = None  # one bit of this byte
    cut_at: int | None = None  # both ways end by a reset after so many bytes
    swallow_at: int | None = None  # nothing is forwarded after so many bytes, and nobody is told
    cut_when: collections.abc.Callable[[], bool] | None = None  # asked before data is forwarded: true resets both ways instead


class Proxy:
    def __init__(self, target_port, rule=None, delay=0.0):
        self.target_port, self.rule, self.delay = target_port, rule or (lambda number, way: None), delay
        self.lock = threading.Lock()
        self.flips = self.cuts = self.connections = 0
        self.sender_depth = self.host_depth = 0
        self.sockets, self.closing = set(), False

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()
        return self

    def __exit__(self, *_):
        with self.lock:
            self.closing = True
            left = list(self.sockets)
        # Closing alone does not wake an accept(): it would go on, and take what is meant for the next proxy's listener.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.acceptor.join(30)
        self.listener.close()
        for one in left:
            self._reset(one)

    def url(self, disk):
        """What the harness asks a Host for: so a Proxy stands where a Host does in harness.send()."""
        return f"backhaul://127.0.0.1:{self.port}/{disk}"

    @property
    def round_trips(self):
        return self.sender_depth

    def cut_all(self):
        """Resets every connection that is open now."""
        with self.lock:
            left, self.cuts = list(self.sockets), self.cuts + 1
        for one in left:
            self._reset(one)

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                host = socket.create_connection(("127.0.0.1", self.target_port))
            except OSError:
                client.close()
                continue
            with self.lock:
                number, self.connections = self.connections, self.connections + 1
                self.sockets |= {client, host}
                faults = {way: self.rule(number, way) or Fault() for way in (TO_HOST, FROM_HOST)}
            for end in (client, host):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(client, host, TO_HOST, faults[TO_HOST])
            self._start(host, client, FROM_HOST, faults[FROM_HOST])

    def _start(self, source, target, way, fault):
        queue, news = collections.deque(), threading.Condition()
        threading.Thread(target=self._read, args=(source, target, way, fault, queue, news), daemon=True).start()
        threading.Thread(target=self._write, args=(target, way, queue, news), daemon=True).start()

    def _read(self, source, target, way, fault, queue, news):
        seen, swallowing = 0, False
        while True:
            try:
                data = source.recv(CHUNK)
            except OSError:
                data = b""
            first, seen = seen, seen + len(data)
            cut = data and fault.cut_at is not None and seen >= fault.cut_at
            if cut:
                data = data[:max(0, fault.cut_at - first)]
            elif data and fault.cut_when is not None and fault.cut_when():
                cut, data = True, b""
            if fault.flip_at is not None and first <= fault.flip_at < first + len(data):
                flipped = bytearray(data)
                flipped[fault.flip_at - first] ^= 0x10
                data = bytes(flipped)
                with self.lock:
                    self.flips += 1
            if fault.swallow_at is not None and seen > fault.swallow_at:
                data, swallowing = data[:max(0, fault.swallow_at - first)] if not swallowing else b"", True
                if not data:
                    if seen == first:
                        return  # the sender gave up; the other end hears nothing of it
                    continue
            with self.lock:
                depth = self.sender_depth + 1 if way == TO_HOST else self.host_depth
                if cut:
                    self.cuts += 1
            with news:
                if data or not cut:
                    queue.append((time.monotonic() + self.delay, depth, data))
                if cut:
                    queue.append((time.monotonic() + self.delay, depth, None))
                news.notify()
            if cut:
                self._forget(source, target)
                self._reset(source)
                return
            if not data:
                return

    def _write(self, target, way, queue, news):
        while True:
            with news:
                while not queue:
                    news.wait()
                due, depth, data = queue.popleft()
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            if data is None:
                self._reset(target)
                return
            with self.lock:
                if way == TO_HOST:
                    self.host_depth = max(self.host_depth, depth)
                else:
                    self.sender_depth = max(self.sender_depth, depth)
            try:
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
            except OSError:
                return

    def _forget(self, *ends):
        with self.lock:
            self.sockets -= set(ends)

    @staticmethod
    def _reset(end):
        try:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        end.close()
