// Reviewing by single keys: each is written beside what it does. In a field keys are letters; there
// Ctrl+Enter sends and Esc leaves. They can be switched off, which this browser remembers.
"use strict";

const KEEP_SWITCH = "batchgen-keys";
const keysSwitch = document.querySelector("[data-keys-switch]");
let keysAreOn = localStorage.getItem(KEEP_SWITCH) !== "off";
let isSent = false; // what is pressed twice is said once

function showSwitch() {
  if (!keysSwitch) return;
  keysSwitch.hidden = false;
  keysSwitch.setAttribute("aria-pressed", keysAreOn);
}

function openField(details) {
  details.open = true;
  const field = details.querySelector("textarea");
  if (!field) return;
  field.focus();
  field.setSelectionRange(field.value.length, field.value.length);
}

function press(element) {
  const details = element.closest("details");
  if (element.matches("summary") && details.querySelector("textarea")) openField(details);
  else if (element.matches("summary")) details.open = !details.open;
  else if (element.dataset.key === "?") document.getElementById("keys").open ^= true;
  else element.click();
}

function inField(event) {
  const field = event.target;
  if (event.key === "Escape") field.blur();
  else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    const key = field.id === "edited" ? "a" : "s";
    document.querySelector(`button[data-key="${key}"]`)?.click();
  } else return;
  event.preventDefault();
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.repeat || isSent) return;
  if (event.target.matches("textarea")) return inField(event);
  if (!keysAreOn || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select")) return;
  if (event.key === " " && event.target.closest("button, a, summary")) return;
  const element = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!element) return;
  event.preventDefault();
  press(element);
});

document.addEventListener("submit", (event) => {
  if (isSent) event.preventDefault();
  isSent = true;
});
window.addEventListener("pageshow", () => { isSent = false; });

keysSwitch?.addEventListener("click", () => {
  keysAreOn = !keysAreOn;
  localStorage.setItem(KEEP_SWITCH, keysAreOn ? "on" : "off");
  showSwitch();
});
showSwitch();
