// The list of jobs, live: a running one moves by itself; when a status changes, the rows are asked for again.

import { refresh as refreshTimes } from "./times.js";

const section = document.querySelector("[data-jobs]");
let timer = 0;

async function update() {
  timer = 0;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.redirected) { location.reload(); return; }
    if (answer.ok) swap(new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("jobs"));
  } catch (error) {
    // The network is away; the next event asks again.
    if (!(error instanceof TypeError)) throw error;
  }
}

function soon() {
  timer ||= setTimeout(update, 150);
}

function swap(fresh) {
  const body = section.querySelector("tbody");
  const rows = fresh.querySelector("tbody");
  if (!body || !rows) {
    section.replaceChildren(...fresh.childNodes);
  } else {
    const focused = document.activeElement?.closest("tr")?.id;
    const kept = [...rows.rows].map((row) => {
      const old = document.getElementById(row.id);
      return old && old.dataset.status === row.dataset.status && old.dataset.status !== "running" ? old : row;
    });
    body.replaceChildren(...kept);
    if (focused) document.getElementById(focused)?.querySelector("a").focus({ preventScroll: true });
    section.querySelector(".tabs")?.replaceWith(fresh.querySelector(".tabs"));
  }
  refreshTimes(section);
}

function move({ id, status, progress: { done, total } }) {
  const row = document.getElementById(`job-${id}`);
  if (!row || row.dataset.status !== status) { soon(); return; }
  if (status !== "running") return;
  const meter = row.querySelector("progress");
  if (meter && total) {
    meter.max = total;
    meter.value = Math.min(done, total);
  }
  if (done) row.querySelector(".cell-rows").textContent = done.toLocaleString("en");
}

if (section) {
  const source = new EventSource(section.dataset.streamUrl);
  source.addEventListener("job", (event) => move(JSON.parse(event.data)));
  // What happened while nobody listened.
  source.addEventListener("open", soon);
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setInterval(update, 5000);
  });
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}
