"""An OpenID Connect provider, as far as the story of signing in by one needs it, written from the standards alone and with what comes
with Python: discovery, keys, authorisation (whoever comes is signed in already) and tokens, for one client with a secret and PKCE.

    NAME ADDRESS CHAIN KEY      its own name, the address where it listens, and its certificate with the key

It prints its port, and ends with its standard input. POST /next {"claims": {...}, "forge": true, "error": "..."} says what is to be
different about the next sign-in.
"""

import base64
import hashlib
import json
import os
import ssl
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

CLIENT, SECRET = "nexushub", "a secret: with signs/"
# An RSA key of 2048 bits that signs nothing but the tokens of this story.
E = 65537
N = int(
    "b186ccce76390f0a1af4b57292c2cda4604ddc26a13d020ee1caf180803afb7705377169f3b8b82acc6261fb9c36f0e18071290123cd0f"
    "287ed0989e654f3ee37061e8c7221c444d058df5464957a52fc2e84d7839fac64485fa4504726a59742338d8fb0491ba6d0b5cffada721"
    "4dc1bc49b8b4d8c8b0ac1ec2c70787d4028b846990ae0e355ee386e087337f57e6e41ddbd40068f23bcfbc4ed3ac395e248cdf8426d1e6"
    "7bc52dfde22704e4dbbf4acdf43f960d8b73d705944a342e25feeeb0c5c5a4cddee98f49b8083266b075ab8e0594e0af6fc7b16f9f5149"
    "2c9a7da4e14a5dbabcee0272464027a4316e1ff93ff0cb31d4917faba3189797c0e7e6eb",
    16,
)
D = int(
    "abd13bb2822f01fa007ce1e0875fe332e46d21ab2c584faaf7a88e7495a72b1a815757d2a400741422c70043a0132205741011ba4e06ce"
    "ff9d3d66ce6709d10ec506535fe808fe51f8139d00449bd4a9ea8a75f041580fece22987584bcf2d24d50780249d6cd8721192c0cd8bf9"
    "bfb81cf427c0b6255c58e4acbf7f9a5bfcd8f958c7beac9aca61012603d302588a49a9605789d24b7b3aa363eb4b93c53eaeb4b33f914e"
    "a79f5d9e6f12074bffebc1aaf9cfbeef8bfcfca2d8f5c9661d5376b62f13e07f50b1082b99dbd83bd53a5d65606f6324c27f7444fce053"
    "4163e4a776cb134cce6eae110bbb5a216f9190ca9a74dbd7639c9cbe92621ddfad000b9",
    16,
)
SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")

lock = Lock()
codes = {}  # code -> what was asked for, and what is to be different
following = {}


def text(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value):
    return text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def sign(message):
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 8.2.1)."""
    end = SHA256 + hashlib.sha256(message).digest()
    padded = b"\x00\x01" + b"\xff" * (256 - 3 - len(end)) + b"\x00" + end
    return pow(int.from_bytes(padded, "big"), D, N).to_bytes(256, "big")


def token(claims, forge):
    said = text({"alg": "RS256", "kid": "story", "typ": "JWT"}) + "." + text(claims)
    signature = sign(said.encode() if not forge else b"something else")
    return said + "." + text(signature)


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body, headers=()):
        body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        url = urlsplit(self.path)
        with lock:
            self.judge(url.path, {name: values[0] for name, values in parse_qs(url.query).items()}, body)

    do_GET = do_POST = do

    def judge(self, path, query, body):
        if path == "/.well-known/openid-configuration":
            return self.answer(200, {
                "issuer": ISSUER, "authorization_endpoint": ISSUER + "/authorize", "token_endpoint": ISSUER + "/token",
                "jwks_uri": ISSUER + "/keys", "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"], "code_challenge_methods_supported": ["S256"],
            })
        if path == "/keys":
            key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "story", "n": number(N), "e": number(E)}
            return self.answer(200, {"keys": [key]})
        if path == "/next":
            following.clear()
            following.update(json.loads(body))
            return self.answer(200, {})
        if path == "/authorize":
            return self.authorize(query)
        if path == "/token":
            return self.redeem({name: values[0] for name, values in parse_qs(body).items()})
        return self.answer(404, {})

    def authorize(self, query):
        wanted = {"response_type": "code", "client_id": CLIENT, "code_challenge_method": "S256"}
        if any(query.get(name) != value for name, value in wanted.items()) or "openid" not in query["scope"].split():
            return self.answer(400, {"error": "invalid_request"})
        code = uuid.uuid4().hex
        codes[code] = (query, dict(following))
        back = {"state": query["state"], "iss": ISSUER}
        back |= {"error": following["error"]} if "error" in following else {"code": code}
        following.clear()
        return self.answer(302, {}, [("Location", query["redirect_uri"] + "?" + urlencode(back))])

    def redeem(self, form):
        kind, _, pair = self.headers.get("Authorization", "").partition(" ")
        client, _, secret = base64.b64decode(pair).decode().partition(":")
        if (kind, unquote(client), unquote(secret)) != ("Basic", CLIENT, SECRET):
            return self.answer(401, {"error": "invalid_client"})
        asked, different = codes.pop(form.get("code"), (None, None))
        challenge = text(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        fits = asked and asked["code_challenge"] == challenge and asked["redirect_uri"] == form.get("redirect_uri")
        if not fits or form.get("grant_type") != "authorization_code":
            return self.answer(400, {"error": "invalid_grant"})
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": "1", "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"],
            "email": "Zoe@example.org", "email_verified": True,
        }
        claims |= different.get("claims", {})
        answer = {"access_token": "none", "token_type": "Bearer", "id_token": token(claims, different.get("forge"))}
        return self.answer(200, answer)

    def log_message(self, *_):
        pass


def end_with_the_story():
    sys.stdin.read()
    os._exit(0)


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # who does not trust it hangs up


NAME, ADDRESS, CHAIN, KEY = sys.argv[1:]
server = Server((ADDRESS, 0), Provider)
ISSUER = f"https://{NAME}:{server.server_port}"
tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
tls.load_cert_chain(CHAIN, KEY)
# The handshake is for the thread of the connection: nobody waits for one who is slow with it.
server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
Thread(target=end_with_the_story, daemon=True).start()
print(server.server_port, flush=True)
server.serve_forever()
