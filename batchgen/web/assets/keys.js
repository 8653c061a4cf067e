// Rows and pages by single keys: j and k go from row to row, o opens one; on the page of an item they
// are its links. They can be switched off, and never take what is typed into a field.
"use strict";

const KEPT = "batchgen-keys";
let keys_are_on = localStorage.getItem(KEPT) !== "off";

function showKeys() {
  for (const one of document.querySelectorAll("[data-keys]")) one.hidden = false;
  for (const one of document.querySelectorAll("[data-keys-switch]")) one.setAttribute("aria-pressed", keys_are_on);
}

function links() {
  return [...document.querySelectorAll("[data-rows] tbody th a")];
}

function go(step) {
  const all = links();
  const at = all.indexOf(document.activeElement);
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step];
  if (next) next.focus();
  else document.querySelector(step > 0 ? "a[rel=next]" : "a[rel=prev]")?.focus();
}

document.addEventListener("keydown", (event) => {
  if (!keys_are_on || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.target.closest("input, select, textarea, [contenteditable]")) return;
  const own = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (own) own.click();
  else if (event.key === "j") go(1);
  else if (event.key === "k") go(-1);
  else if (event.key === "o") document.activeElement.closest("[data-rows] a")?.click();
  else return;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-keys-switch]")) return;
  keys_are_on = !keys_are_on;
  localStorage.setItem(KEPT, keys_are_on ? "on" : "off");
  showKeys();
});

// A search that has found nothing yet goes on by itself, for ten seconds.
const GO_ON_MS = 10000;
const further = document.querySelector("[data-go-on]");
const begun = Number(sessionStorage.getItem("batchgen-search-begun")) || 0;
if (!further) sessionStorage.removeItem("batchgen-search-begun");
else if (!begun || Date.now() - begun < GO_ON_MS) {
  if (!begun) sessionStorage.setItem("batchgen-search-begun", Date.now());
  location.replace(further.href);
} else sessionStorage.removeItem("batchgen-search-begun");

showKeys();
