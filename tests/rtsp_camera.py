"""A camera on the loopback interface that speaks RTSP over TCP, as RFC 2326 has it: it sends an MPEG transport stream once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nm=video 0 RTP/AVP 33\r\na=control:video\r\n"
PACKETS = 7 * 188  # bytes of the transport stream in a packet of RTP


@contextmanager
def rtsp_camera(stream: bytes) -> Iterator[str]:
    """Yields the address of a camera that sends `stream` to each client, and then is silent."""

    class Camera(StreamRequestHandler):
        def handle(self):
            with suppress(ConnectionError):  # the client has closed
                while request := self.rfile.readline().decode():
                    lines = iter(lambda: self.rfile.readline().decode().strip(), "")
                    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                    self.answer(request.split()[0], headers)

        def answer(self, method: str, headers: dict[str, str]):
            body = SDP if method == "DESCRIBE" else ""
            lines = ["RTSP/1.0 200 OK", f"CSeq: {headers['cseq']}", "Session: 1", f"Content-Length: {len(body)}"]
            lines += ["Content-Type: application/sdp"] if body else []
            lines += [f"Transport: {headers['transport']}"] if method == "SETUP" else []
            self.wfile.write("\r\n".join([*lines, "", body]).encode())
            for number, start in enumerate(range(0, len(stream) if method == "PLAY" else 0, PACKETS)):
                header = b"\x80\x21" + number.to_bytes(2, "big") + bytes(7) + b"\x01"  # of RTP, with type 33
                packet = header + stream[start : start + PACKETS]
                self.wfile.write(b"$\x00" + len(packet).to_bytes(2, "big") + packet)

    with ThreadingTCPServer(("127.0.0.1", 0), Camera) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"rtsp://127.0.0.1:{server.server_address[1]}/video"
        server.shutdown()
