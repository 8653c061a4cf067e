// What all pages do beside being read: keep their numbers up to date, and copy commands.
// A page works without it. Texts come with the page, in its language.
"use strict";

const EVERY_MS = 2000;
const SLOWEST_MS = 10000;
const root = document.documentElement;
let wait_ms = EVERY_MS;
let unanswered_since = null;
let timer = null;

// A test waits for this number instead of for a time.
function drawn() {
  root.dataset.ready = Number(root.dataset.ready) + 1;
}

function tell(text) {
  const state = document.getElementById("state");
  if (state && state.textContent !== text) state.textContent = text;
}

// Whether somebody is about to use what stands there: it is left as it is, until they have.
function isInUse(element) {
  if (element.matches(":active")) return true;
  if (element.contains(document.activeElement) && document.activeElement.matches("input, select, textarea"))
    return true;
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && selection.containsNode(element, true);
}

function replace(old, fresh) {
  if (old.isEqualNode(fresh) || isInUse(old)) return;
  const open = [...old.querySelectorAll("details")].map((one) => one.open);
  fresh.querySelectorAll("details").forEach((one, place) => { one.open = open[place] ?? one.open; });
  const focused = document.activeElement;
  const place = old.contains(focused) ? [...old.querySelectorAll("a, button, summary")].indexOf(focused) : -1;
  old.replaceWith(document.adoptNode(fresh));
  if (place >= 0) fresh.querySelectorAll("a, button, summary")[place]?.focus({preventScroll: true});
}

// The page asks for itself. The answer is empty while it is what is shown already.
async function look() {
  try {
    const answer = await fetch(location.href, {
      headers: {"Batchgen-Seen": root.dataset.version},
      signal: AbortSignal.timeout(20000),
    });
    if (answer.status === 200) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const element of document.querySelectorAll("[data-live]")) {
        const same = fresh.getElementById(element.id);
        if (same) replace(element, same);
      }
      root.dataset.version = fresh.documentElement.dataset.version;
      document.dispatchEvent(new Event("batchgen:fresh"));
    } else if (answer.status !== 204) {
      throw new Error(answer.statusText);
    }
    unanswered_since = null;
    wait_ms = EVERY_MS;
    tell("");
  } catch {
    unanswered_since ??= new Date();
    wait_ms = Math.min(wait_ms * 1.5, SLOWEST_MS);
    const time = unanswered_since.toLocaleTimeString(root.lang, {hour: "2-digit", minute: "2-digit"});
    tell(document.body.dataset.noAnswer.replace("{time}", time));
  }
  drawn();
  plan(wait_ms);
}

function plan(after_ms) {
  clearTimeout(timer);
  timer = document.hidden ? null : setTimeout(look, after_ms);
}

async function copy(button) {
  const words = button.parentElement.querySelector("code").textContent;
  await navigator.clipboard.writeText(words);
  const before = button.textContent;
  button.textContent = document.body.dataset.copied;
  setTimeout(() => { button.textContent = before; }, 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});

if (navigator.clipboard) {
  for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
}
if (document.querySelector("[data-live]")) {
  document.addEventListener("visibilitychange", () => plan(0));
  plan(EVERY_MS);
}
drawn();
