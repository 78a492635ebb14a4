"""A person with a phone's narrow screen and nothing but a keyboard: every action of a page is reached by Tab and seen when it is.

A part of browser.py, which has the platform and the browser. Nothing here clicks, and nothing is filled but by keys.
"""

from playwright.sync_api import expect

PHONE = {"width": 375, "height": 667}
# Everything that can be done on a page, numbered; what is folded away is not there until it is unfolded.
ACTIONS = """() => {
  const kinds = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]";
  const there = (e) => e.checkVisibility({visibilityProperty: true}) && !e.disabled && e.tabIndex >= 0;
  const name = (e) => (e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.name || e.tagName).trim().slice(0, 60);
  return [...document.querySelectorAll(kinds)].filter(there).map((e, at) => { e.dataset.action = at; return name(e); });
}"""
# Which of them has the focus, and whether that can be seen: nothing lies over it, and it has a ring.
FOCUS = """() => {
  const e = document.activeElement;
  if (e === document.body || e.dataset.action === undefined) return null;
  const box = e.getBoundingClientRect();
  const [x, y] = [(box.left + box.right) / 2, box.top + Math.min(box.height, 40) / 2];
  const over = document.elementFromPoint(x, y);
  const seen = over !== null && (e.contains(over) || over.contains(e)) && box.left >= -1 && box.right <= innerWidth + 1;
  return [Number(e.dataset.action), seen && getComputedStyle(e).outlineStyle !== "none"];
}"""
NAME = """() => {
  const e = document.activeElement;
  return [e.tagName.toLowerCase(), (e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || "").trim()];
}"""
WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Longest walk along a page, in presses.
FAR = 300


class Thumb:
    """Somebody who does all of it by keys."""

    def __init__(self, page, story):
        self.page, self.story = page, story

    def reach(self, kind, name):
        """Tab, until an element of that kind whose name begins so has the focus."""
        for _ in range(FAR):
            self.page.keyboard.press("Tab")
            found, called = self.page.evaluate(NAME)
            if found == kind and called.startswith(name):
                return
        raise AssertionError(f"no {kind} `{name}` is reached by Tab on {self.page.url}")

    def fill(self, name, text, kind="input"):
        self.reach(kind, name)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def press(self, name, kind="button", key="Enter"):
        self.reach(kind, name)
        self.page.keyboard.press(key)

    def agree(self, name):
        """Presses what asks whether that is meant, and says yes."""
        self.page.once("dialog", lambda dialog: dialog.accept())
        self.press(name)

    def unfold(self):
        """Opens everything that is folded away, each by its own key."""
        for _ in range(self.page.locator("details:not([open]) > summary").count()):
            for _ in range(FAR):
                self.page.keyboard.press("Tab")
                if self.page.evaluate("() => document.activeElement.matches('details:not([open]) > summary')"):
                    self.page.keyboard.press("Enter")
                    break

    def everything(self, what):
        """Every action of this page has the focus once, there and back, and can be seen then; nothing is wider than the screen."""
        self.unfold()
        wide = self.page.evaluate(WIDE)
        assert wide <= 0, f"{what}: {wide} pixels wider than the screen"
        names = self.page.evaluate(ACTIONS)
        for key in ["Tab", "Shift+Tab"]:
            seen = set()
            for _ in range(2 * len(names) + 10):
                self.page.keyboard.press(key)
                focus = self.page.evaluate(FOCUS)
                if focus is not None:
                    seen.add(focus[0])
                    assert focus[1], f"{what}: `{names[focus[0]]}` has the focus by {key} and is not seen"
            missed = [name for at, name in enumerate(names) if at not in seen]
            assert not missed, f"{what}: {missed} are not reached by {key}"
        self.story.seen(what, self.page)


def walk(page, story, admin, who, package):
    """From signing in to signing out, with an app in between; `who` administers, by this name and password."""
    thumb = Thumb(page, story)
    page.goto(admin)
    thumb.everything("the sign-in by keys alone")
    thumb.fill("Name", who[0])
    thumb.fill("Password", who[1])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Apps")).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate(NAME) == ["a", "To the content"], "the way past the header comes first"
    thumb.everything("the list of apps by keys alone")
    thumb.fill("Name", "Kiosk")
    thumb.fill("App id", "kiosk")
    thumb.fill("Host name", "kiosk")
    thumb.press("Create")
    expect(page.get_by_role("heading", name="Kiosk", exact=True)).to_be_visible()
    deploy(thumb, package)
    settings(thumb)
    orders(thumb)
    people(thumb, admin, who[0])
    thumb.press("Sign out")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    story.seen("out again by keys alone", page)


def deploy(thumb, package):
    page = thumb.page
    with page.expect_file_chooser() as chooser:
        thumb.press("New version", kind="input")
    chooser.value.set_files(package)
    thumb.press("Deploy")
    expect(page.locator("[data-f=state]")).to_have_text("running")
    expect(page.locator("#outcome .good")).to_be_visible()
    thumb.everything("the page of an app by keys alone")
    thumb.press("Hold")
    expect(page.get_by_role("button", name="Go on")).to_be_visible()
    thumb.press("Go on")
    expect(page.get_by_role("button", name="Hold")).to_be_visible()


def settings(thumb):
    page = thumb.page
    thumb.reach("summary", "Who may call it")
    if not page.locator("#callers").is_visible():
        page.keyboard.press("Enter")
    thumb.fill("Apps that may ask for its /api", "shop", kind="textarea")
    thumb.fill("Origins", "https://shop.example", kind="textarea")
    thumb.fill("Memory", "200")
    thumb.press("Save")
    expect(page.get_by_text("Saved.").first).to_be_visible()
    expect(page.locator("#memory")).to_have_value("200 MiB")
    expect(page.locator("#callers")).to_have_value("shop")
    expect(page.locator("[data-f=state]")).to_have_text("running")
    thumb.story.seen("who may call an app and what it may use, by keys alone", page)
    thumb.reach("select", "Who")
    page.keyboard.type("zoe")
    thumb.reach("select", "May they?")
    page.keyboard.type("may not")  # who loses access is signed out, and that would be she
    thumb.press("Add the rule")
    expect(page.get_by_label("Remove the rule for zoe")).to_be_visible()
    thumb.press("Remove the rule for zoe")
    expect(page.get_by_label("Remove the rule for zoe")).to_have_count(0)


def orders(thumb):
    page = thumb.page
    thumb.agree("Pause")
    expect(page.locator("[data-f=state]")).to_have_text("paused")
    thumb.press("Resume")
    expect(page.locator("[data-f=state]")).to_have_text("running")
    thumb.press("Restart")
    expect(page.get_by_text("started anew").first).to_be_visible()
    thumb.press("Remove this app", kind="summary")
    thumb.agree("Remove Kiosk")
    expect(page.get_by_text("The app is removed").first).to_be_visible()


def people(thumb, admin, name):
    page = thumb.page
    thumb.press("Users", kind="a")
    expect(page.get_by_role("heading", name="Users")).to_be_visible()
    thumb.everything("the users by keys alone")
    thumb.press("Audit", kind="a")
    expect(page.get_by_role("heading", name="Audit")).to_be_visible()
    thumb.everything("the audit log by keys alone")
    thumb.press(name, kind="a")
    expect(page.get_by_role("heading", name="Sessions").or_(page.get_by_text("Log out everywhere")).first).to_be_visible()
    thumb.everything("an account by keys alone")
    page.goto(admin)
