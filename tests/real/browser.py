"""A person at a browser, from the first password to logging out everywhere: the pages of login and admin on a running platform.

    browser.py PORT CA_FILE SHOTS      SHOTS: a folder for screenshots
The administrator's password stands in the variable NEXUSHUB_PASSWORD. Ends with the line `N passed, N failed`.
"""

import http.client
import io
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import keyboard
from playwright.sync_api import expect, sync_playwright

DOMAIN = "yesterday.localhost"
PATIENCE = 30_000 * int(os.environ.get("NEXUSHUB_PATIENCE", "1"))
# An app that says who comes.
APP = """#!/usr/bin/python3
import http.server, os

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/api/status":
            print("GET", self.path, flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Hello from the shop")

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answer).serve_forever()
"""
BROKEN = """#!/bin/sh
echo 'the database is not there' >&2
exit 3
"""


class Story:
    """What was seen, and a picture of each page."""

    def __init__(self, shots):
        self.shots = pathlib.Path(shots)
        self.shots.mkdir(parents=True, exist_ok=True)
        self.passed = 0
        self.began = time.monotonic()

    def seen(self, what, page, full=True):
        self.passed += 1
        page.evaluate("scrollTo(0, 0)")  # else what sticks to the top is in the middle of the picture
        page.screenshot(path=self.shots / f"{self.passed:02}-{what.replace(' ', '-')}.png", full_page=full)
        print(f"ok: {what} ({time.monotonic() - self.began:.1f} s)", flush=True)


def package(program):
    """A zip with this program as the app, unlike every other."""
    entry = zipfile.ZipInfo("bin/app")
    entry.external_attr = 0o100755 << 16
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(entry, program)
        zipped.writestr("version.txt", os.urandom(8).hex())
    return {"name": "shop.zip", "mimeType": "application/zip", "buffer": kept.getvalue()}


class Visitor:
    """Somebody who asks for an app over and over, and notes when it first answered."""

    def __init__(self, port, ca):
        self.port, self.tls = int(port), ssl.create_default_context(cafile=ca)
        self.pool = ThreadPoolExecutor(1)

    def waits_for(self, name):
        """When the app of this name has answered for the first time, as a future: seconds since 1970."""
        return self.pool.submit(self.ask, f"{name}.{DOMAIN}", time.time() + PATIENCE / 1000)

    def ask(self, host, until):
        while time.time() < until:
            raw = socket.create_connection(("127.0.0.1", self.port), timeout=30)
            connection = http.client.HTTPSConnection(host, self.port)
            connection.sock = self.tls.wrap_socket(raw, server_hostname=host)
            connection.request("GET", "/")
            answer = connection.getresponse()
            good = answer.status == 200 and b"Hello from the shop" in answer.read()
            connection.close()
            if good:
                return time.time()
        raise TimeoutError(f"{host} does not answer")


# In the page: when something was clicked last, kept until the next page of the same app.
CLICKS = "addEventListener('click', () => sessionStorage.setItem('clicked', Date.now()), true)"


def sign_in(page, name, password):
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def deploy(page, zipped):
    page.locator("#zip").set_input_files(zipped)
    page.get_by_role("button", name="Deploy").click()


class Walk:
    """One story from beginning to end."""

    def __init__(self, browser, story, port, ca, password):
        self.browser, self.story, self.password = browser, story, password
        self.waiting = Visitor(port, ca)
        self.at = lambda host: f"https://{host}.{DOMAIN}:{port}/"
        self.page = self.visitor()

    def visitor(self, **more):
        context = self.browser.new_context(ignore_https_errors=False, **more)
        context.set_default_timeout(PATIENCE)
        return context.new_page()

    def first_login(self):
        self.page.goto(self.at("admin"))
        self.story.seen("who comes is asked who it is", self.page)
        sign_in(self.page, "admin", "a wrong password")
        expect(self.page.get_by_role("alert")).to_be_visible()
        self.story.seen("a wrong password is told so", self.page)
        sign_in(self.page, "admin", self.password)
        expect(self.page.get_by_role("heading", name="Apps")).to_be_visible()
        self.story.seen("the printed password opens the list of apps", self.page)

    def create(self):
        self.page.locator("#name").fill("Shop")
        self.page.locator("#appid").fill("shop")
        self.page.locator("#host").fill("shop")
        self.page.get_by_role("button", name="Create").click()
        expect(self.page.get_by_role("heading", name="Shop", exact=True)).to_be_visible()
        expect(self.page.locator("[data-f=state]")).to_have_text("no package yet", timeout=PATIENCE)
        self.story.seen("a new app waits for its package", self.page)

    def live(self, what, answered):
        """Says how long it took from the last click to an app's first answer to somebody else: a figure, and no promise."""
        clicked = float(self.page.evaluate("sessionStorage.getItem('clicked')"))
        print(f"time from the click on {what} to live: {answered.result() * 1000 - clicked:.0f} ms", flush=True)

    def push(self):
        self.page.evaluate(CLICKS)
        answered = self.waiting.waits_for("shop")
        deploy(self.page, package(APP))
        self.live("Deploy, its upload included,", answered)
        expect(self.page.locator("[data-f=state]")).to_have_text("running", timeout=PATIENCE)
        self.story.seen("its package runs", self.page)
        visitor = self.page.context.new_page()
        visitor.goto(self.at("shop"))
        expect(visitor.locator("body")).to_contain_text("Hello from the shop")
        self.story.seen("it is open to who asks for its name", visitor)
        visitor.close()

    def watch(self):
        log = self.page.locator("[data-log]")
        expect(log).to_contain_text("GET /", timeout=PATIENCE)
        before = log.inner_text().count("GET /")
        visitor = self.page.context.new_page()
        visitor.goto(self.at("shop"))
        visitor.close()
        self.page.wait_for_function(
            "before => document.querySelector('[data-log]').innerText.split('GET /').length - 1 > before", arg=before)
        self.story.seen("its log is told as it is written", self.page)

    def break_it(self):
        deploy(self.page, package(BROKEN))
        expect(self.page.get_by_text("did not come up").first).to_be_visible(timeout=PATIENCE)
        expect(self.page.locator("body")).to_contain_text("the database is not there")
        visitor = self.page.context.new_page()
        visitor.goto(self.at("shop"))
        expect(visitor.locator("body")).to_contain_text("Hello from the shop")
        visitor.close()
        self.story.seen("a broken version is told with its last words, and the old one serves on", self.page)

    def go_back(self):
        deploy(self.page, package(APP))
        expect(self.page.get_by_text("has taken over").first).to_be_visible(timeout=PATIENCE)
        current = self.page.locator("#versions li", has_text="current").locator("strong")
        back = self.page.get_by_role("button", name="Go back to it").first
        expect(back).to_be_visible()  # so the list is the one after the deploy
        version = current.inner_text()
        self.page.once("dialog", lambda dialog: dialog.accept())
        back.click()
        expect(current).not_to_have_text(version, timeout=PATIENCE)
        expect(self.page.locator("[data-f=state]")).to_have_text("running", timeout=PATIENCE)
        self.story.seen("an earlier version is gone back to", self.page)

    def let_in(self):
        self.page.goto(self.at("admin") + "users")
        self.page.locator("#username").fill("zoe")
        self.page.locator("#password").fill("a long enough password")
        self.page.get_by_role("button", name="Add", exact=True).click()
        expect(self.page.locator("body")).to_contain_text("zoe")
        zoe = self.visitor(viewport={"width": 390, "height": 844}, color_scheme="dark")
        zoe.goto(self.at("admin"))
        sign_in(zoe, "zoe", "a long enough password")
        expect(zoe.get_by_text("may not open").first).to_be_visible()
        self.story.seen("who has no rule is refused", zoe)
        self.page.goto(self.at("admin") + "users")
        self.page.locator("#subject").select_option(label="zoe")
        self.page.locator("#app").select_option(label="Admin (admin)")
        self.page.get_by_role("button", name="Add the rule").click()
        expect(self.page.get_by_label("Remove the rule for zoe")).to_be_visible()
        self.story.seen("a rule lets a user in", self.page)
        zoe.goto(self.at("admin"))
        expect(zoe.get_by_role("heading", name="Apps")).to_be_visible()
        self.story.seen("who has a rule is let in, on a phone in the dark", zoe)

    def by_keys(self):
        page = self.visitor(viewport=keyboard.PHONE, has_touch=True)
        who = ("zoe", "a long enough password")  # whose sessions end with it
        keyboard.walk(page, self.story, self.at("admin"), who, package(APP))
        page.context.close()

    def create_another(self):
        """Of an application whose package is there."""
        self.page.goto(self.at("admin"))
        self.page.locator("#name").fill("Branch")
        self.page.locator("#appid").fill("shop")
        self.page.locator("#host").fill("branch")
        self.page.evaluate(CLICKS)
        answered = self.waiting.waits_for("branch")
        self.page.get_by_role("button", name="Create").click()
        self.live("Create", answered)
        expect(self.page.locator("[data-f=state]")).to_have_text("running", timeout=PATIENCE)
        self.story.seen("a second app of the same package is live at once", self.page)

    def leave(self):
        self.page.goto(self.at("admin") + "audit")
        expect(self.page.locator("body")).to_contain_text("back to a version")
        self.story.seen("who did what stands in the audit log", self.page, full=False)
        other = self.visitor()
        other.goto(self.at("admin"))
        sign_in(other, "admin", self.password)
        expect(other.get_by_role("heading", name="Apps")).to_be_visible()
        self.page.goto(self.at("login"))
        self.story.seen("an account knows its sessions", self.page)
        self.page.on("dialog", lambda dialog: dialog.accept())
        self.page.get_by_role("button", name="Log out everywhere").click()
        other.goto(self.at("admin"))
        expect(other.get_by_role("button", name="Sign in")).to_be_visible()
        self.story.seen("who logs out everywhere is out in the other browser, too", other)

    def whole(self):
        for step in [self.first_login, self.create, self.push, self.watch, self.break_it, self.go_back, self.let_in, self.by_keys,
                     self.create_another, self.leave]:
            step()


def trusting(home, ca):
    """An environment whose browser trusts this authority, as a person's does who has added it."""
    store = pathlib.Path(home) / ".pki/nssdb"
    store.mkdir(parents=True)
    for order in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "nexushub", "-i", ca]):
        subprocess.run(["certutil", "-d", f"sql:{store}", *order], check=True)
    return {**os.environ, "HOME": str(home)}


def main():
    port, ca, shots = sys.argv[1:4]
    story = Story(shots)
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        arguments = [f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1", "--no-sandbox"]
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=arguments, env=trusting(home, ca))
        walk = Walk(browser, story, port, ca, os.environ["NEXUSHUB_PASSWORD"])
        try:
            walk.whole()
        except Exception as error:
            walk.page.screenshot(path=story.shots / "failed.png", full_page=True)
            print(f"FAILED: {error}\n{story.passed} passed, 1 failed")
            return 1
        finally:
            browser.close()
    print(f"{story.passed} passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
