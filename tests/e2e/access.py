"""A login app and an admin app, as far as the stories of access need them, written from the contract alone and with what comes
with Python. Everything else that it is asked it echoes: the request's headers, and who the platform proves to ask.

Passwords are `<name>'s`. /signin finds a user who is logged in already. POST /public/deny?app=ID closes an app to everybody.
"""

import hashlib
import hmac
import json
import os
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.parse import parse_qs, quote, urlsplit

SECRET = os.environ["INTERNAL_SECRET"]
USERS = {"ada": 7, "zoe": 8}
lock = Lock()
tokens = {}  # refresh token -> (user, session)
ended = set()  # refresh tokens that were rotated out
codes = {}  # code -> (user, session, app, state)
denied = set()


def proven(headers):
    """Who asks, if the platform says so: the parts of the identity by their keys."""
    said, _, mac = headers.get("X-Nexushub-Identity", "").rpartition(";m=")
    key = hashlib.sha256(SECRET.encode()).digest()
    if not hmac.compare_digest(hmac.new(key, said.encode(), "sha256").hexdigest(), mac):
        return None
    parts = dict(part.split("=", 1) for part in said.split(";")[1:])
    return parts if abs(time.time() - int(parts["t"])) <= 60 else None


def issue(user, session):
    token = uuid.uuid4().hex
    tokens[token] = (user, session)
    return token


def grant(user, session, app):
    if app in denied:
        return 403, {"error": "denied"}
    now = int(time.time())
    return 200, {
        "Expiry": now + 600, "RefreshToken": issue(user, session), "AccessToken": "", "ApplicationID": app,
        "UserID": USERS[user], "UserName": user, "SessionID": session, "RefreshExpiry": now + 86400,
    }


def refresh(asked):
    token, app = asked["RefreshToken"], asked["ApplicationID"]
    if token in ended:
        return 401, {"error": "reused"}
    if token not in tokens:
        return 401, {"error": "unknown"}
    if app in denied:
        return 403, {"error": "denied"}
    ended.add(token)
    return grant(*tokens.pop(token), app)


def redeem(asked):
    user, session, app, state = codes.pop(asked["Code"], (None,) * 4)
    if not user or (app, state) != (asked["ApplicationID"], asked["State"]):
        return 401, {"error": "unknown"}
    return grant(user, session, app)


def logout(asked):
    if asked["RefreshToken"] not in tokens:
        return 401, {"error": "unknown"}
    user, _ = tokens[asked["RefreshToken"]]
    gone = {token: session for token, (whose, session) in tokens.items() if whose == user}
    for token in gone:
        del tokens[token]
    return 200, {"SessionIDs": sorted(set(gone.values())), "UserID": 7}


INTERNAL = {"/internal/access_token": refresh, "/internal/redeem": redeem, "/internal/logout": logout}


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, headers=()):
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        who = proven(self.headers)
        with lock:
            self.judge(url.path, query, body, who)

    do_GET = do_POST = do_PUT = do

    def judge(self, path, query, body, who):
        if path in INTERNAL:
            if not who or who["c"] != "@proxy":
                return self.answer(403, {"error": "who asks?"})
            return self.answer(*INTERNAL[path](json.loads(body)))
        if path == "/public/login":
            asked = json.loads(body)
            user = asked["username"]
            if asked["password"] != user + "'s":
                return self.answer(401, "invalid username or password\n")
            token = issue(user, uuid.uuid4().hex)
            domain = self.headers["X-Forwarded-Host"].split(":")[0]
            cookie = f"YRT={token}; Path=/; HttpOnly; Secure; SameSite=Lax"
            return self.answer(200, {"domain": domain, "app_refresh_token": token}, [("Set-Cookie", cookie)])
        if path == "/signin":
            code = uuid.uuid4().hex
            codes[code] = ("ada", uuid.uuid4().hex, query["app"], query["state"])
            back = f"/public/return?app={quote(query['app'])}&code={code}&state={quote(query['state'])}"
            return self.answer(303, "", [("Location", back)])
        if path == "/public/deny":
            denied.add(query["app"])
            return self.answer(200, "")
        if path == "/api/status":
            return self.answer(200, "OK")
        seen = {name.lower(): value for name, value in self.headers.items()}
        return self.answer(200, {"path": path, "headers": seen, "who": who, "secret": SECRET})

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
