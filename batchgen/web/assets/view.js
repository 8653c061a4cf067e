// What all pages do beside being read: keep their numbers up to date, and copy commands.
// A page works without it. Texts come with the page, in its language.
"use strict";

const EVERY_MS = 2000;
const SLOWEST_MS = 10000;
const root = document.documentElement;
let wait_ms = EVERY_MS;
let unanswered_since = null;
let isRefused = false;
let timer = null;

// A test waits for this number instead of for a time.
function drawn() {
  root.dataset.ready = Number(root.dataset.ready) + 1;
}

function tell(text) {
  const state = document.getElementById("state");
  if (state.textContent !== text) state.textContent = text;
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
  if (!fresh || old.isEqualNode(fresh) || isInUse(old)) return;
  const open = [...old.querySelectorAll("details")].map((one) => one.open);
  fresh.querySelectorAll("details").forEach((one, place) => { one.open = open[place] ?? one.open; });
  const focused = document.activeElement;
  const place = old.contains(focused) ? [...old.querySelectorAll("a, button, summary")].indexOf(focused) : -1;
  old.replaceWith(document.adoptNode(fresh));
  if (place >= 0) fresh.querySelectorAll("a, button, summary")[place]?.focus({preventScroll: true});
}

// Without cookies, which whoever has the port by now would get too. The key is one to look with, and
// worth nothing once the server that made this page has ended.
function ask(url, more) {
  const headers = {"Batchgen-Tab": root.dataset.tab, "Accept-Language": root.lang, ...more};
  return fetch(url, {credentials: "omit", headers, signal: AbortSignal.timeout(20000)});
}

// The page asks for itself. The answer is empty while it is what is shown already.
async function look() {
  const words = document.body.dataset;
  try {
    const answer = await ask(location.href, {"Batchgen-Seen": root.dataset.version});
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    showCopies(fresh);
    if (answer.status === 200) {
      for (const element of document.querySelectorAll("[data-live]")) {
        replace(element, fresh.getElementById(element.id));
      }
      root.dataset.version = fresh.documentElement.dataset.version;
      document.dispatchEvent(new Event("batchgen:fresh"));
    }
    isRefused = answer.status === 401 || answer.status === 403;  // by another one: it is asked no more
    unanswered_since = null;
    wait_ms = answer.ok ? EVERY_MS : SLOWEST_MS;
    const problem = fresh.getElementById("problem")?.textContent ?? answer.statusText;
    tell(isRefused ? words.refused : answer.ok ? "" : problem);
  } catch {
    unanswered_since ??= new Date().toLocaleTimeString(root.lang, {hour: "2-digit", minute: "2-digit"});
    wait_ms = Math.min(wait_ms * 1.5, SLOWEST_MS);
    tell(words.noAnswer.replace("{time}", unanswered_since));
  }
  drawn();
  plan(wait_ms);
}

function plan(after_ms) {
  clearTimeout(timer);
  timer = document.hidden || isRefused ? null : setTimeout(look, after_ms);
}

const showCopies = (page) => page.querySelectorAll("[data-copy]").forEach((one) => { one.hidden = !navigator.clipboard; });

async function copy(button) {
  await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
  button.textContent = document.body.dataset.copied;
  setTimeout(() => { button.textContent = document.body.dataset.toCopy; }, 1500);
}

document.addEventListener("click", ({target}) => { if (target.closest("[data-copy]")) copy(target.closest("[data-copy]")); });

showCopies(document);
if (document.querySelector("[data-live]")) {
  document.addEventListener("visibilitychange", () => plan(0));
  plan(EVERY_MS);
}
drawn();
