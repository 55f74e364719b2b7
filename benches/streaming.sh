#!/usr/bin/env bash
# Streams over WebSockets: the time to the first batch beside a direct portal's first rows, rows a second, 100 streams at once, memory,
# and how long it takes to stop. PROXY: HELIOSPROXY_BIN, else the release build.
#   ROWS=5000000 ROUNDS=15 benches/streaming.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
set -euo pipefail
ROWS=${ROWS:-5000000} ROUNDS=${ROUNDS:-15}
leave_nothing_behind
need_postgres
need_proxy
bench_cluster "$ROWS" 'max_connections = 300'
stream=$(free_port)
HELIOSPROXY_STREAM_MAX_CONCURRENT_STREAMS=200 HELIOSPROXY_STREAM_LISTEN="127.0.0.1:$stream" HELIOSPROXY_STREAM_HEARTBEAT_INTERVAL_MS=60000 proxy_start "$DIR/proxy.log" postgres

python3 - "$CLUSTER_PORT" "$stream" "$PROXY_PID" "$ROUNDS" <<'PY'
import json, os, selectors, socket, statistics, struct, sys, time

direct_port, stream_port, proxy, rounds = map(int, sys.argv[1:])
SQL = "SELECT * FROM big"

def memory(line):
    for text in open(f"/proc/{proxy}/status"):
        if text.startswith(line + ":"):
            return int(text.split()[1]) // 1024

class Direct:
    """A client of the server that reads a portal."""
    def __init__(self):
        self.s = socket.create_connection(("127.0.0.1", direct_port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = struct.pack("!i", 196608) + b"user\0postgres\0database\0postgres\0\0"
        self.s.sendall(struct.pack("!i", len(body) + 4) + body)
        self.until(b"Z\0\0\0\5I")
    def until(self, *ends):
        tail = b""
        while not tail.endswith(ends):
            got = self.s.recv(1 << 18)
            if not got: sys.exit("closed")
            tail = (tail + got)[-6:]
        return tail
    def message(self, tag, body):
        return tag + struct.pack("!i", len(body) + 4) + body
    def first(self):
        began = time.monotonic()
        self.s.sendall(self.message(b"P", b"\0" + SQL.encode() + b"\0\0\0") + self.message(b"B", b"\0" * 8)
                       + self.message(b"E", b"\0" + struct.pack("!i", 1000)) + self.message(b"H", b""))
        self.until(b"s\0\0\0\4")
        took = time.monotonic() - began
        self.s.sendall(self.message(b"S", b""))
        self.until(b"Z\0\0\0\5I")
        return took
    def all(self):
        began = time.monotonic()
        self.s.sendall(self.message(b"Q", SQL.encode() + b"\0"))
        self.until(b"Z\0\0\0\5I")
        return time.monotonic() - began

class Streams:
    """A WebSocket, read a frame at a time; rows are counted by the proxy's own totals."""
    def __init__(self):
        self.s = socket.create_connection(("127.0.0.1", stream_port))
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.s.sendall(b"GET /stream?database=postgres&application_name=streams HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                       b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                       b"Authorization: Basic cG9zdGdyZXM6\r\n\r\n")
        self.buffer = bytearray()
        while b"\r\n\r\n" not in self.buffer: self.more()
        assert self.buffer.startswith(b"HTTP/1.1 101"), self.buffer
        del self.buffer[:self.buffer.index(b"\r\n\r\n") + 4]
    def more(self):
        got = self.s.recv(1 << 20)
        if not got: sys.exit("closed")
        self.buffer += got
    def say(self, **message):
        text = json.dumps(message).encode()
        head = bytes([0x81]) + (bytes([0x80 | len(text)]) if len(text) < 126 else bytes([0xfe]) + struct.pack("!H", len(text)))
        self.s.sendall(head + b"\0\0\0\0" + text)
    def start(self, name, sql=SQL): self.say(type="StartStream", query_id=name, sql=sql)
    def frames(self):
        """The whole frames that are here."""
        at = 0
        while len(self.buffer) - at >= 2:
            size, head = self.buffer[at + 1], 2
            if size == 126:
                if len(self.buffer) - at < 4: break
                size, head = struct.unpack_from("!H", self.buffer, at + 2)[0], 4
            elif size == 127:
                if len(self.buffer) - at < 10: break
                size, head = struct.unpack_from("!Q", self.buffer, at + 2)[0], 10
            if len(self.buffer) - at < head + size: break
            yield bytes(self.buffer[at + head:at + head + min(size, 200)]) if size > 4096 else bytes(self.buffer[at + head:at + head + size])
            at += head + size
        del self.buffer[:at]
    def next(self):
        """Frames until some are here."""
        while True:
            found = list(self.frames())
            if found: return found
            self.more()
    def until(self, *types):
        while True:
            for frame in self.next():
                if any(frame.startswith(b'{"type":"' + wanted) for wanted in types): return frame
    def first(self):
        began = time.monotonic()
        self.start("q")
        self.until(b"DataBatch")
        took = time.monotonic() - began
        self.say(type="StopStream", query_id="q")
        self.until(b"StreamError")
        return took
    def all(self):
        began = time.monotonic()
        self.start("q")
        end = json.loads(self.until(b"StreamCompleted", b"StreamError"))
        return time.monotonic() - began, end["total_rows"]

ms = lambda times: f"median {statistics.median(times) * 1000:.1f} ms, longest {max(times) * 1000:.1f} ms"
direct, stream = Direct(), Streams()
direct.first(), stream.first()
pairs = [(direct.first(), stream.first()) for _ in range(rounds)]
print(f"first 1,000 rows, direct portal: {ms([one for one, _ in pairs])}")
print(f"first batch of a stream:         {ms([two for _, two in pairs])}")

runs = [(direct.all(), *stream.all()) for _ in range(3)]
rows = runs[0][2]
print(f"one stream: {rows / statistics.median(run[1] for run in runs):,.0f} rows/s; "
      f"directly, without a portal, as PostgreSQL's own rows: {rows / statistics.median(run[0] for run in runs):,.0f} rows/s")
print(f"memory after that: now {memory('VmRSS')} MB, at most {memory('VmHWM')} MB")

stops = []
for _ in range(rounds):
    stream.start("q", "SELECT count(*) FROM big a, big b")
    stream.until(b"StreamStarted")
    time.sleep(0.2)
    began = time.monotonic()
    stream.say(type="StopStream", query_id="q")
    stream.until(b"StreamError")
    stops.append(time.monotonic() - began)
print(f"StopStream until the upstream is free: {ms(stops)}")

# 100 streams that nobody reads.
sockets = [Streams() for _ in range(10)]
for number, one in enumerate(sockets):
    for query in range(10): one.start(f"{number}.{query}")
last = steady = 0
while steady < 10:
    time.sleep(0.3)
    now = memory("VmRSS")
    last, steady = now, steady + 1 if now == last else 0
print(f"100 streams of {rows:,} rows each that nobody reads: {last} MB")
for one in sockets: one.s.close()
time.sleep(3)

# And 100 that are read.
share = rows // 100
sockets, left, selector = [Streams() for _ in range(10)], 100, selectors.DefaultSelector()
began = time.monotonic()
for number, one in enumerate(sockets):
    selector.register(one.s, selectors.EVENT_READ, one)
    for query in range(10): one.start(f"{number}.{query}", f"{SQL} LIMIT {share}")
total = 0
while left:
    for key, _ in selector.select():
        one = key.data
        one.more()
        for frame in one.frames():
            if frame.startswith(b'{"type":"StreamError'): sys.exit(frame)
            if frame.startswith(b'{"type":"StreamCompleted'):
                total += json.loads(frame)["total_rows"]
                left -= 1
print(f"100 streams at once of {share:,} rows each: {total / (time.monotonic() - began):,.0f} rows/s in all, "
      f"memory at most {memory('VmHWM')} MB")
PY
