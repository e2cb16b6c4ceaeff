// Swaps in the page's parts when the job's status changes, and asks again for what no event tells
// (the queue, the mail). The server's templates stay the only words there are.

import { refresh as refreshTimes } from "./times.js";

const PARTS = ["job-head", "job-band", "job-side"];
const FINAL = new Set(["succeeded", "failed", "cancelled"]);

const job = document.querySelector("[data-job]");
let timer = 0;
let asking = false;
let again = false;

async function update() {
  clearTimeout(timer);
  if (asking) { again = true; return; }
  asking = true;
  try {
    do {
      again = false;
      const answer = await fetch(job.dataset.summaryUrl, { headers: { Accept: "text/html" } });
      // Signed out, or the job is gone: the page itself says it best.
      if (answer.redirected || answer.status === 404) { location.reload(); return; }
      if (answer.ok) swap(await answer.text());
    } while (again);
  } catch (error) {
    // The network is away; stream.js says so, and we ask again later.
    if (!(error instanceof TypeError)) throw error;
  } finally {
    asking = false;
  }
  plan();
}

function plan() {
  clearTimeout(timer);
  const seconds = Number(job.dataset.refresh);
  if (seconds) timer = setTimeout(update, seconds * 1000);
}

function swap(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const told = fresh.getElementById("job-summary").dataset;
  // Put back on the queue elsewhere after it had ended: its stream is closed, so begin anew.
  if (FINAL.has(job.dataset.status) && !FINAL.has(told.status)) { location.reload(); return; }
  for (const id of PARTS) replace(document.getElementById(id), fresh.getElementById(id), told.status);
  job.dataset.status = told.status;
  job.dataset.refresh = told.refresh;
  refreshTimes(job);
  const final = FINAL.has(told.status);
  const detail = { status: told.status, final, last: Number(told.last) };
  job.dispatchEvent(new CustomEvent("waybill:summary", { detail }));
}

function replace(old, fresh, status) {
  // What runs, here or in a job that this one joined, is drawn by progress.js; drawn again from here it would jump.
  const joined = [old, fresh].every((part) => part.querySelector("[data-joined]"));
  const running = old.id === "job-band" && status === job.dataset.status && (status === "running" || joined);
  if ((running && !fresh.querySelector("[data-cancelling]")) || shape(old) === shape(fresh)) return;
  const focused = old.contains(document.activeElement) ? key(document.activeElement) : null;
  const part = document.importNode(fresh, true);
  old.replaceWith(part);
  if (focused === null) return;
  const twin = [...part.querySelectorAll("a, button, input, select, summary")].find((other) => key(other) === focused);
  if (twin) twin.focus({ preventScroll: true });
  else {
    part.tabIndex = -1;
    part.focus({ preventScroll: true });
  }
}

// Markup without what changes by itself: the words of relative times, the session's token, what modules have shown.
function shape(part) {
  const copy = part.cloneNode(true);
  for (const time of copy.querySelectorAll("time")) time.replaceChildren(time.dateTime);
  for (const time of copy.querySelectorAll("time")) for (const name of ["title", "data-local"]) time.removeAttribute(name);
  for (const token of copy.querySelectorAll("input[name=csrf_token]")) token.remove();
  for (const button of copy.querySelectorAll("[data-copy]")) button.remove();
  copy.removeAttribute("tabindex");
  return copy.innerHTML.replace(/\s+/g, " ");
}

function key(element) {
  return `${element.tagName} ${element.id} ${element.textContent.trim()}`;
}

job.addEventListener("waybill:status", ({ detail }) => { if (detail.status !== job.dataset.status) update(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) update(); });
plan();
