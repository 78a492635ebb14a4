"""A client that knows nothing but the contract (its sections 3.3, 3.4 and 5 of 1): logs in, gets an access token, calls an
API, refreshes, and logs out, once by the earlier generation's path of tokens and once by the later one's.

    contract_client.py HOST:PORT CA_FILE USER PASSWORD      HOST is admin's, as admin.yesterday.localhost
Ends with the line `N passed, N failed`; the password may stand in the variable NEXUSHUB_PASSWORD instead.
"""

import http.client
import json
import os
import socket
import ssl
import sys
from http.cookies import SimpleCookie

ADMIN = "18736e4f-93f9-4606-a7be-863c7986ea5b"


class Client:
    """A client that keeps one cookie, as those of the contract do."""

    def __init__(self, authority, ca):
        self.host, port = authority.rsplit(":", 1)
        self.port = int(port)
        self.tls = ssl.create_default_context(cafile=ca)
        self.refresh = None

    def ask(self, method, path, body=None, token=None, cookie=True):
        """Status, text and JSON (or None) of an answer; a rotated cookie is kept."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=60)
        connection.sock = self.tls.wrap_socket(raw, server_hostname=self.host)
        headers = {"Host": f"{self.host}:{self.port}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if cookie and self.refresh:
            headers["Cookie"] = f"YRT={self.refresh}"
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        for line in answer.headers.get_all("Set-Cookie") or []:
            jar = SimpleCookie(line)
            if "YRT" in jar:
                self.refresh = jar["YRT"].value or None
        connection.close()
        try:
            return answer.status, text, json.loads(text)
        except ValueError:
            return answer.status, text, None


class Story:
    """What was checked, and what came of it."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, good, seen=""):
        if good:
            self.passed += 1
            print(f"ok: {what}")
        else:
            self.failed += 1
            print(f"FAILED: {what}: {seen}")

    def equal(self, what, expected, seen):
        self.check(what, expected == seen, f"expected {expected!r}, found {seen!r}")


def log_in(story, client, user, password):
    status, text, _ = client.ask("POST", "/public/login", {"username": user, "password": password + "x"})
    story.equal("a wrong password is refused", (401, "invalid username or password"), (status, text.strip()))
    story.equal("and leaves no cookie", None, client.refresh)
    status, text, said = client.ask("POST", "/public/login", {"username": user, "password": password})
    story.equal("the right one is taken", 200, status)
    story.check("the answer is the contract's", bool(said and said["domain"] == client.host and said["app_refresh_token"]), text)
    story.check("the cookie is there", bool(client.refresh), text)


def call(story, client, token):
    status, text, said = client.ask("GET", "/api/applications", token=token, cookie=False)
    ids = [app["instanceId"] for app in (said or {}).get("applications", [])]
    story.check("the API answers with the token", status == 200 and ADMIN in ids, f"{status} {text[:200]}")
    story.equal("and without it not", 401, client.ask("GET", "/api/applications", cookie=False)[0])
    forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    story.equal("nor with a forged one", 401, client.ask("GET", "/api/applications", token=forged, cookie=False)[0])


def walk(story, client, path, user, password):
    """Login, token, call, refresh, logout, by one of the two paths of tokens."""
    print(f"-- {path}")
    log_in(story, client, user, password)
    first = client.refresh
    status, text, said = client.ask("POST", path)
    token = (said or {}).get("access_token")
    story.check("an access token is given", status == 200 and bool(token), f"{status} {text}")
    story.check("the cookie rotates", client.refresh not in (None, first), client.refresh)
    if not token:
        return
    call(story, client, token)
    second = client.refresh
    status, text, said = client.ask("POST", path)
    again = (said or {}).get("access_token")
    story.check("it is refreshed", status == 200 and bool(again), f"{status} {text}")
    story.check("the cookie rotates once more", client.refresh not in (None, first, second), client.refresh)
    call(story, client, again)
    last = client.refresh
    status, text, said = client.ask("POST", "/public/logout")
    story.equal("logout", (200, "null"), (status, text.strip()))
    story.equal("the access token is worth nothing at once", 401,
                client.ask("GET", "/api/applications", token=again, cookie=False)[0])
    client.refresh = last
    after_logout(story, client, path)


def after_logout(story, client, path):
    status, text, said = client.ask("POST", path)
    if path == "/api/access_token":
        story.check("the refresh token, too", status == 200 and "login_url" in (said or {}), f"{status} {text}")
    else:
        story.check("the refresh token, too", status in (401, 403) and not (said or {}).get("access_token"), f"{status} {text}")
    client.refresh = None
    status, text, said = client.ask("POST", path)
    if path == "/api/access_token":
        story.check("without one there is the way to log in", status == 200 and "login_url" in (said or {}), f"{status} {text}")
    else:
        story.equal("without one it says so", (403, "missing refresh token"), (status, text.strip()))
    status, text, _ = client.ask("POST", "/public/logout")
    story.equal("logout without one", (400, "missing refresh token"), (status, text.strip()))


def main():
    words = sys.argv[1:]
    if len(words) == 3:
        words.append(os.environ.get("NEXUSHUB_PASSWORD", ""))
    if len(words) != 4 or not words[3] or not words[0].rpartition(":")[2].isdigit():
        print("usage:", __doc__.split("\n\n")[1].splitlines()[0].strip(), file=sys.stderr)
        return 2
    authority, ca, user, password = words
    story = Story()
    for path in ["/api/access_token", "/public/access_token"]:
        walk(story, Client(authority, ca), path, user, password)
    print(f"{story.passed} passed, {story.failed} failed")
    return 1 if story.failed else 0


if __name__ == "__main__":
    sys.exit(main())
