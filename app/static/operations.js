// The operations page, asked for again every few seconds; only the parts that changed are swapped in.

import { refresh as refreshTimes } from "./times.js";

const EVERY = 5000;
const page = document.querySelector("[data-operations]");
let timer = 0;

async function update() {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    // Signed out, or an administrator no more: the page itself says it best.
    if (answer.redirected || answer.status === 404) { location.reload(); return; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (answer.ok) swap(fresh);
    else say(fresh);
  } catch (error) {
    // The network is away; we ask again.
    if (!(error instanceof TypeError)) throw error;
    document.title = "No connection · Operations · Waybill";
  }
  timer = setTimeout(update, EVERY);
}

function swap(fresh) {
  document.title = fresh.title;
  document.querySelector(".page-head").replaceWith(fresh.querySelector(".page-head"));
  for (const part of page.querySelectorAll("[data-part]")) replace(part, fresh.getElementById(part.id));
  refreshTimes();
}

// Only its inside: a live region that stays the same element is read aloud when it changes.
function replace(old, fresh) {
  if (shape(old) === shape(fresh)) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  old.replaceChildren(...document.importNode(fresh, true).childNodes);
  if (focused === null) return;
  const twin = [...old.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused);
  twin?.focus({ preventScroll: true });
}

// The server could not look, as without its database: its own words stand where the findings were.
function say(fresh) {
  const message = fresh.querySelector(".lead-in")?.textContent.trim();
  const findings = document.getElementById("ops-findings");
  const told = findings.querySelector("[data-code=unanswered] p");
  document.title = "No answer · Operations · Waybill";
  if (told?.textContent === message) return;
  const notice = document.createElement("div");
  notice.className = "notice notice-danger finding";
  notice.dataset.code = "unanswered";
  notice.append(Object.assign(document.createElement("p"), { textContent: message }));
  findings.replaceChildren(notice);
}

// Markup without what changes by itself: the words of relative times and what times.js has noted on them.
function shape(part) {
  const copy = part.cloneNode(true);
  for (const time of copy.querySelectorAll("time")) {
    time.replaceChildren(time.dateTime);
    for (const name of ["title", "data-local"]) time.removeAttribute(name);
  }
  return copy.innerHTML.replace(/\s+/g, " ");
}

document.addEventListener("visibilitychange", update);
timer = setTimeout(update, EVERY);
