// Keeps the pages of admin up to date. Every page is whole without it.
"use strict";

const every = (selector, act, root = document) => root.querySelectorAll(selector).forEach(act);

function write(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

// ---- what the apps are doing, while somebody looks

function renew(now) {
  every("[data-away]", (notice) => { notice.hidden = !now.away; });
  if (now.away) return;
  every("[data-id]", (place) => {
    const live = now.apps[place.dataset.id];
    if (!live) return;
    every("[data-f]", (element) => {
      const field = element.dataset.f;
      write(element, live[field] ?? "");
      if (field === "state") element.className = `badge state ${live.class}`;
    }, place);
  });
}

// A page that stays open outlives its access; the platform renews that for a session that goes on. Another page than ours
// means that somebody has to sign in, which is what loading this page again leads to.
async function live(path) {
  const answer = await fetch(path);
  if (answer.status !== 401) return answer;
  return fetch(`/public/signin?continue=${encodeURIComponent(path)}`).catch(() => answer);
}

function follow(place) {
  const look = async () => {
    try {
      if (!document.hidden) {
        const answer = await live(place.dataset.live);
        if (answer.status === 401 || answer.status === 403) return location.reload();
        if (answer.ok) renew(await answer.json());
      }
    } catch { /* away for a moment: the next look tells */ }
    setTimeout(look, 2000);
  };
  setTimeout(look, 1000);
}

// ---- an app's log, as it is written

const LINES = 2000;

function tail(log) {
  let last = "";
  const button = document.querySelector("[data-log-hold]");
  const waiting = [];
  let held = false;
  const add = (line) => {
    const low = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
    const row = document.createElement("div");
    const at = document.createElement("span");
    at.className = "at";
    at.textContent = `${(line.timestamp ?? "").slice(11, 19)} `;
    row.append(at, line.message ?? "");
    if (line.level === "error") row.classList.add("error");
    if (line.source === "system" || line.source === "platform") row.classList.add("platform");
    log.append(row);
    while (log.childElementCount > LINES) log.firstElementChild.remove();
    if (low) log.scrollTop = log.scrollHeight;
  };
  const take = (event) => {
    let line;
    last = event.lastEventId || last;
    try { line = JSON.parse(event.data); } catch { return; }
    if (held) { if (waiting.push(line) > LINES) waiting.shift(); } else add(line);
  };
  const open = () => {
    const source = new EventSource(`${log.dataset.log}?after=${encodeURIComponent(last)}`);
    source.onmessage = take;
    source.addEventListener("log", take);
    // A browser comes back by itself after a break, but not after a refusal.
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(open, 4000); };
  };
  open();
  button?.addEventListener("click", () => {
    held = !held;
    button.textContent = held ? "Go on" : "Hold";
    if (!held) waiting.splice(0).forEach(add);
  });
}

// ---- a package on its way

function say(place, kind, text, lines) {
  const notice = document.createElement("p");
  notice.className = `notice ${kind}`;
  notice.textContent = text;
  place.replaceChildren(notice);
  if (lines?.length) {
    const log = document.createElement("pre");
    log.className = "log short";
    log.textContent = lines.join("\n");
    place.append(log);
  }
}

// The app's page as it would be now; not this address, which a form may have led to.
async function again(selector) {
  const answer = await fetch(document.querySelector("[data-page]").dataset.page);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [old, fresh] = [document.querySelector(selector), page.querySelector(selector)];
  if (old && fresh) old.replaceWith(fresh);
  every(`${selector} form[data-confirm]`, ask);
}

function upload(form) {
  form.addEventListener("submit", (event) => {
    const file = form.elements.zip.files[0];
    if (!file) return;
    event.preventDefault();
    const [bar, place, button] = [form.querySelector("progress"), document.querySelector("#outcome"), form.querySelector("button")];
    const request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("content-type", "application/zip");
    request.setRequestHeader("accept", "application/json");
    request.setRequestHeader("x-csrf-token", form.elements.csrf.value);
    button.disabled = true;
    bar.hidden = false;
    bar.value = 0;
    say(place, "", `Sending ${file.name} …`);
    request.upload.onprogress = (step) => { if (step.lengthComputable) bar.value = step.loaded / step.total; };
    request.upload.onload = () => {
      bar.removeAttribute("value");
      say(place, "", "All of it is there. Starting the new version beside the old one …");
    };
    const end = (kind, text, lines) => {
      every(".column > .notice.good", (before) => before.remove()); // it is about something earlier
      button.disabled = false;
      bar.hidden = true;
      form.reset();
      say(place, kind, text, lines);
      again("#versions");
    };
    request.onload = () => {
      let said = {};
      try { said = JSON.parse(request.responseText); } catch { /* no answer of ours: its status says enough */ }
      if (request.status === 200) end(said.good ? "good" : "bad", said.text, said.log);
      else end("bad", said.error ?? `That did not work (${request.status}). The page shows what runs now.`);
    };
    request.onerror = () => end("bad", "The connection broke off. The page shows what runs now.");
    request.send(file);
  });
}

// ---- what can't be undone is asked about

function ask(form) {
  form.addEventListener("submit", (event) => { if (!confirm(form.dataset.confirm)) event.preventDefault(); });
}

every("[data-live]", follow);
every("[data-log]", tail);
every("form[data-upload]", upload);
every("form[data-confirm]", ask);
