// The live log: appends lines as they come, each number once; stays at the end unless one scrolled up.

// More than this the page does not hold; earlier lines are one link away.
const KEPT = 2000;
// How near to the end still counts as being there, in pixels.
const NEAR = 24;
// A burst is drawn no more often than this, in milliseconds, and drawing takes a third of the time at most;
// its first line is drawn at once.
const BREATH = 100;
// Where the browser keeps what one reads in place by itself, we must not do it again.
const ANCHORS = CSS.supports("overflow-anchor", "auto");

const job = document.querySelector("[data-job]");
const box = document.getElementById("log");
const list = document.getElementById("log-lines");
const jump = document.getElementById("log-jump");
const earlier = document.getElementById("log-earlier");
const state = document.querySelector("[data-connection]");

let last = Number(list.dataset.last);
let waiting = [];
let scheduled = false;
let next = 0;
let unseen = 0;
let top = 0;
let following = job.dataset.live === "yes" && !location.hash.startsWith("#L");

job.addEventListener("waybill:log", ({ detail }) => take(detail));

function take(line) {
  if (line.number <= last) return;
  last = line.number;
  waiting.push(line);
  if (scheduled) return;
  scheduled = true;
  const pause = next - performance.now();
  // A hidden tab gets no animation frames.
  if (document.hidden || pause > 0) setTimeout(flush, Math.max(pause, 0));
  else requestAnimationFrame(flush);
}

function flush() {
  const began = performance.now();
  scheduled = false;
  const lines = waiting.slice(-KEPT);
  waiting = [];
  document.getElementById("log-waiting").hidden = true;
  if (lines.length === KEPT) list.replaceChildren();
  list.append(...lines.map(element));
  forget();
  if (following) toEnd();
  else unseen += lines.length;
  showJump();
  const ended = performance.now();
  next = ended + Math.max(BREATH, 2 * (ended - began));
}

function element({ number, at, level, text }) {
  const item = document.createElement("li");
  item.id = `L${number}`;
  item.className = level === "info" ? "line" : `line line-${level}`;
  item.dataset.number = number;
  const anchor = document.createElement("a");
  anchor.className = "line-number";
  anchor.href = `#L${number}`;
  anchor.textContent = number;
  anchor.setAttribute("aria-label", `Line ${number}`);
  const time = document.createElement("time");
  time.dateTime = at;
  time.title = `${at.slice(0, 10)} ${at.slice(11, 19)} UTC`;
  time.textContent = at.slice(11, 23);
  const words = document.createElement("span");
  words.className = "line-text";
  if (level !== "info") {
    const mark = document.createElement("b");
    mark.className = "line-level";
    mark.textContent = level;
    words.append(mark, " ");
  }
  words.append(text);
  item.append(anchor, time, words);
  return item;
}

// Takes the oldest lines away; what one is reading stays where it is.
function forget() {
  const surplus = list.children.length - KEPT;
  if (surplus > 0) {
    const before = following || ANCHORS ? null : box.scrollHeight;
    const range = document.createRange();
    range.setStartBefore(list.children[0]);
    range.setEndBefore(list.children[surplus]);
    range.deleteContents();
    if (before !== null) box.scrollTop -= before - box.scrollHeight;
  }
  const first = Number(list.firstElementChild?.dataset.number ?? 1);
  if (first <= 1) return;
  const link = earlier.querySelector("[data-earlier]");
  link.href = link.dataset.earlier + first;
  earlier.querySelector("[data-earlier-count]").textContent = (first - 1).toLocaleString("en");
  earlier.hidden = false;
}

const distance = () => box.scrollHeight - box.scrollTop - box.clientHeight;

function toEnd() {
  box.scrollTop = box.scrollHeight;
  top = box.scrollTop;
}

function showJump() {
  jump.hidden = following || distance() <= NEAR;
  if (jump.hidden) return;
  const words = unseen ? `${unseen.toLocaleString("en")} new line${unseen === 1 ? "" : "s"}` : "Jump to the latest";
  jump.querySelector("span").textContent = words;
}

// Only going up ends the following: lines that turn out higher than thought move the end, too.
box.addEventListener("scroll", () => {
  if (distance() <= NEAR) following = true;
  else if (box.scrollTop < top) following = false;
  top = box.scrollTop;
  if (following) unseen = 0;
  showJump();
}, { passive: true });

jump.addEventListener("click", () => {
  following = true;
  unseen = 0;
  toEnd();
  showJump();
  box.focus({ preventScroll: true });
});

const sizes = new ResizeObserver(() => { if (following) toEnd(); });
sizes.observe(box);
sizes.observe(list);

const CONNECTION = { open: "Live", lost: "Reconnecting…", ended: "Ended" };

function connection(name) {
  state.dataset.connection = name;
  state.textContent = CONNECTION[name] ?? "";
}

job.addEventListener("waybill:connection", ({ detail }) => {
  if (state.dataset.connection !== "ended") connection(detail.state);
});
job.addEventListener("waybill:summary", ({ detail }) => {
  if (!detail.final) return;
  connection("ended");
  if (job.dataset.live === "yes" && detail.last > last) afterwards();
});

// Lines that come after the end, when no stream is there any more: about the mail.
async function afterwards() {
  try {
    const answer = await fetch(`${job.dataset.logUrl}?after=${last}`);
    if (answer.ok) for (const line of (await answer.json()).items) take(line);
  } catch (error) {
    // The network is away; the next summary brings us here again.
    if (!(error instanceof TypeError)) throw error;
  }
}

if (following) toEnd();
showJump();
