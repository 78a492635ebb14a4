"""Clients of the debug API as three generations of developers have them, and the tool that tries uploads: written from the text of the
contract alone, with what comes with Python. Each does what its original does, step by step, and holds every answer against the
contract.

    generations.py GENERATION PORT CA PASSWORD
"""

import base64
import hashlib
import http.client
import io
import json
import socket
import ssl
import struct
import sys
import threading
import time
import uuid
import zipfile

GENERATION, PORT, CA, PASSWORD = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
BASE = "yesterday.localhost"
CHUNK = 2 << 20
# How long anything may take; the originals have less, but theirs is no slow machine.
PATIENCE = 180
# How the generations differ: where the access token is had, the call that installs, how the host name is written, and whether there
# are logs.
GENERATIONS = {
    "a-seed": ("/api/access_token", "install", "{}.debug." + BASE, False),
    "a": ("/api/access_token", "install", "{}.debug", True),
    "a-last": ("/api/access_token", "install-dev", "{}.debug", True),
    "b": ("/public/access_token", "install-dev", "{}.debug", True),
}

APP = '''#!/usr/bin/python3 -u
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class App(BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked for", self.path)
        body = b"OK" if self.path == "/api/status" else b"VERSION"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

print("VERSION begins")
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
'''


class Connection(http.client.HTTPSConnection):
    """HTTPS to this machine, whatever the name."""

    def connect(self):
        stream = socket.create_connection(("127.0.0.1", PORT), self.timeout)
        self.sock = self._context.wrap_socket(stream, server_hostname=self.host)


def trusting(verify=True):
    context = ssl.create_default_context(cafile=CA)
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class Answer:
    def __init__(self, response):
        self.status, self.headers = response.status, response.headers
        self.text = response.read().decode()

    def json(self):
        return json.loads(self.text)


def call(method, path, host="admin." + BASE, headers=None, body=None, timeout=PATIENCE, verify=True):
    connection = Connection(host, PORT, context=trusting(verify), timeout=timeout)
    try:
        connection.request(method, path, body, headers or {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def expect(answer, *statuses):
    assert answer.status in statuses, (answer.status, answer.text)
    return answer


def refused(answer, status, text):
    """An error, as all of them are said."""
    assert (answer.status, answer.text) == (status, text + "\n"), (answer.status, answer.text)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def package(version):
    """A zip of several chunks, whose app says this version."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        app = zipfile.ZipInfo("bin/app")
        app.external_attr = 0o100755 << 16
        archive.writestr(app, APP.replace("VERSION", version))
        archive.writestr("static/page.txt", "page of " + version)
        archive.writestr("ballast", hashlib.sha512(version.encode()).digest() * (5 << 14))
    return file.getvalue()


def cookie(answer, name):
    said = [value.split(";")[0] for value in answer.headers.get_all("Set-Cookie", [])]
    found = [value for value in said if value.startswith(name + "=")]
    assert found, answer.headers
    return found[-1]


def form(fields, chunk):
    boundary = uuid.uuid4().hex
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="chunk"; filename="chunk"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    body = "".join(parts).encode() + head.encode() + chunk + f"\r\n--{boundary}--\r\n".encode()
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}, body


class Developer:
    """The command line of one generation."""

    def __init__(self, generation):
        self.exchange, self.install_call, self.host, self.has_logs = GENERATIONS[generation]
        self.name = "Demo " + generation.replace("-", "_")
        self.clean = self.name.lower().replace(" ", "-").replace("_", "-")
        self.app_id = "debug-" + self.clean
        self.bearer = {}
        self.id = None

    def log_in(self):
        body = json.dumps({"username": "admin", "password": PASSWORD})
        answer = expect(call("POST", "/public/login", body=body), 200)
        self.refresh = cookie(answer, "YRT")
        answer = expect(call("POST", self.exchange, headers={"Cookie": self.refresh}), 200)
        if GENERATION == "b":
            rotated = cookie(answer, "YRT")
            assert rotated != self.refresh, "the token rotates"
            self.refresh = rotated
        self.bearer = {"Authorization": "Bearer " + answer.json()["access_token"]}

    def ask(self, method, what="", headers=None, body=None):
        path = "/debug/application" + (f"/{self.id}" if self.id else "") + what
        return call(method, path, headers={**self.bearer, **(headers or {})}, body=body, timeout=PATIENCE)

    def create(self, static):
        asked = {
            "appId": self.app_id, "displayName": "Debug: " + self.name, "hostName": self.host.format(self.clean),
            "dbName": f"debug_{self.clean.replace('-', '_')}.db", "staticServiceUrl": static,
        }
        answer = expect(self.ask("POST", headers={"Content-Type": "application/json"}, body=json.dumps(asked)), 201)
        made = answer.json()
        assert set(made) == set(asked) | {"id", "status", "createdAt"}, made
        assert all(made[key] == asked[key] for key in asked if key != "hostName"), made
        assert (made["hostName"], made["status"]) == (self.clean + ".debug", "pending"), made
        assert made["createdAt"].endswith("Z") and answer.text.endswith("}\n")
        self.id = made["id"]

    def upload(self, zipped):
        digest = hashlib.md5(zipped).hexdigest()
        pieces = [zipped[at:at + CHUNK] for at in range(0, len(zipped), CHUNK)]
        assert len(pieces) >= 3
        for index, piece in enumerate(pieces):
            headers, body = form([("chunkIndex", index), ("totalChunks", len(pieces)), ("fileHash", digest)], piece)
            answer = expect(self.ask("POST", "/upload", headers, body), 200, 201)
            last = index + 1 == len(pieces)
            assert answer.json() == ({
                "message": "Package upload completed successfully", "status": "completed",
            } if last else {"message": "Chunk received successfully", "status": "received"}), answer.text
        progress = expect(self.ask("GET", "/upload/status"), 200).json()
        assert progress["applicationId"] == self.id and progress["completed"] is True, progress
        assert (progress["totalChunks"], progress["receivedChunks"], progress["progress"]) == (len(pieces),) * 2 + (100,)

    def install(self):
        answer = expect(self.ask("POST", "/" + self.install_call), 200, 202).json()
        assert set(answer) == {"applicationId", "status", "message", "installedAt"}, answer
        assert answer["applicationId"] == self.id and answer["status"] == "running", answer
        self.ask("POST", "/" + self.install_call)  # once more, whatever is said

    def status(self):
        answer = expect(self.ask("GET", "/status"), 200).json()
        assert {"applicationId", "status", "lastUpdated", "metadata"} <= set(answer), answer
        assert set(answer["metadata"]) == {"appId", "displayName", "hostName", "staticServiceUrl"}, answer
        return answer

    def wait_ready(self):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            status = self.status()
            assert status["status"] != "stopped", "at that word the original gives up"
            if status["status"] == "running" and status.get("healthCheck") == "healthy":
                return
        raise AssertionError(status)

    def stop(self):
        self.ask("POST", "/stop")  # whatever is said
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if self.status()["status"] in ("stopped", "failed"):
                return
        raise AssertionError("a stop that does not end")

    def logs(self, wanted):
        """Reads the stream until a line says so, then hangs up, as the original's own time limit has it."""
        connection = Connection("admin." + BASE, PORT, context=trusting(), timeout=PATIENCE)
        connection.request("GET", f"/debug/application/{self.id}/logs", headers=self.bearer)
        stream = connection.getresponse()
        assert stream.status == 200
        for name, value in [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"),
                            ("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Headers", "Cache-Control")]:
            assert stream.headers[name] == value, (name, stream.headers[name])
        first, last = None, -1
        for line in stream:
            if not line.startswith(b"data: "):
                assert line in (b"\n", b"event: log\n", b"event: keepalive\n") or line.startswith(b"id: "), line
                continue
            entry = json.loads(line[len("data: "):])
            assert {"id", "timestamp", "level", "source", "message"} <= set(entry), entry
            if first is None:
                first = entry
                said = ("system", f"Log stream started for application {self.id}", 0)
                assert (entry["source"], entry["message"], entry["id"]) == said, entry
                continue
            if entry["source"] == "stdout":
                assert entry["id"] > last and entry["level"] == "info" and entry["pid"], "in order, and each once"
                last = entry["id"]
            if entry["message"] == wanted:
                break
        connection.close()

    def api(self, wanted):
        """What its API answers whom: nobody without a token, and an administrator, whom no rule names, with one."""
        host, path = f"{self.clean}.debug.{BASE}", "/api/version"
        expect(call("GET", path, host), 401)
        body = json.dumps({"username": "admin", "password": PASSWORD})
        refresh = cookie(expect(call("POST", "/public/login", host, body=body), 200), "YRT")
        given = expect(call("POST", self.exchange, host, headers={"Cookie": refresh}), 200).json()
        bearer = {"Authorization": "Bearer " + given["access_token"]}
        assert expect(call("GET", path, host, headers=bearer), 200).text == wanted

    def serves(self, path, wanted):
        answer = expect(call("GET", path, f"{self.clean}.debug.{BASE}"), 200)
        assert answer.text == wanted, answer.text

    def run(self):
        """The whole sequence: push, watch, hot reload, quit."""
        front = FrontEnd()
        self.log_in()
        self.create(f"http://localhost:{front.port}")
        refused(self.ask("POST", "/" + self.install_call), 400, "No package uploaded for this application")
        refused(self.ask("GET", "/upload/status"), 404, "Upload session not found")
        self.upload(package("v1"))
        self.install()
        self.wait_ready()
        self.serves("/public/version", "v1")
        self.api("v1")
        front.judge(f"{self.clean}.debug.{BASE}")
        if self.has_logs:
            for _ in range(2):  # the second time with the history
                self.logs("v1 begins")
        self.stop()
        self.upload(package("v2"))
        self.install()
        self.wait_ready()
        self.serves("/public/version", "v2")
        if self.has_logs:
            self.logs("v2 begins")
        for _ in range(2):
            self.stop()
        answer = expect(self.ask("DELETE"), 204)
        assert answer.text == ""
        refused(self.ask("GET", "/status"), 404, "Debug application not found")
        refused(self.ask("DELETE"), 404, "Debug application not found")
        answer = expect(call("POST", "/public/logout", headers={"Cookie": self.refresh}), 200, 400)
        assert GENERATION != "b" or (answer.status, answer.text.strip()) == (200, "null"), answer.text


class FrontEnd:
    """A developer's front-end server: pages, and the WebSocket by which it tells them of changes."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            stream, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(stream.makefile("rwb"),), daemon=True).start()

    @staticmethod
    def serve(stream):
        while line := stream.readline():
            path = line.split()[1].decode()
            fields = {}
            while (field := stream.readline().strip()):
                name, value = field.decode().split(":", 1)
                fields[name.lower()] = value.strip()
            if "upgrade" in fields:
                said = fields["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                accept = base64.b64encode(hashlib.sha1(said.encode()).digest()).decode()
                stream.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
                stream.write(f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: vite-hmr\r\n\r\n".encode())
                stream.write(bytes([0x81, 6]) + b"reload")
                stream.flush()
                stream.read(1)
                return
            body = f"front end: {path}".encode()
            stream.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            stream.flush()

    def judge(self, host):
        """What is not the API's comes from here, a WebSocket too."""
        for path in ["/", "/src/main.ts?t=1", "/page.txt"]:
            assert expect(call("GET", path, host), 200).text == "front end: " + path
        assert expect(call("GET", "/public/version", host), 200).text == "v1"
        expect(call("GET", "/internal/version", host), 401)
        connection = Connection(host, PORT, context=trusting(), timeout=PATIENCE)
        key = base64.b64encode(b"sixteen bytes ok").decode()
        connection.request("GET", "/?token=x", headers={
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13", "Sec-WebSocket-Protocol": "vite-hmr",
        })
        stream = connection.sock.makefile("rb")
        assert stream.readline().split()[1] == b"101"
        while stream.readline().strip():
            pass
        kind, length = struct.unpack("BB", stream.read(2))
        assert (kind, stream.read(length)) == (0x81, b"reload")
        stream.close()
        connection.close()


def test_upload():
    """The tool that tries uploads: at localhost, without a token, by its own appId; it verifies the certificate once."""
    app_id, zipped = "test-upload-app", package("v1")
    asked = {"appId": app_id, "displayName": "Test", "hostName": "test-upload.debug", "dbName": "test.db"}
    here = {"host": "localhost"}
    head = {"Content-Type": "application/json"}
    made = call("POST", "/debug/application", headers=head, body=json.dumps(asked), **here)
    if PASSWORD == "refused":
        refused(made, 401, "Unauthorized")
        return
    assert expect(made, 201).json()["id"] != app_id
    pieces = [zipped[at:at + CHUNK] for at in range(0, len(zipped), CHUNK)]
    for index, piece in enumerate(pieces):
        fields = [("chunkIndex", index), ("totalChunks", len(pieces)), ("fileHash", hashlib.md5(zipped).hexdigest())]
        headers, body = form(fields, piece)
        expect(call("POST", f"/debug/application/{app_id}/upload", headers=headers, body=body, verify=False, **here), 200)
    status = expect(call("GET", f"/debug/application/{app_id}/upload/status", verify=False, **here), 200).json()
    assert status["completed"] is True and status["progress"] == 100, status
    expect(call("DELETE", f"/debug/application/{app_id}", verify=False, **here), 204)


if GENERATION == "test-upload":
    test_upload()
else:
    Developer(GENERATION).run()
