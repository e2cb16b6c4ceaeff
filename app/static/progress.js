// The running job's numbers: percent, rows, rate, time left, elapsed. The server drew the first ones.

const job = document.querySelector("[data-job]");
// The rate is that of the last seconds, not of the whole job.
const WINDOW = 12000;

let samples = [];
let drawn = null;
let began = 0;

export function duration(seconds) {
  const whole = Math.max(Math.round(seconds), 0);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  return minutes % 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min` : `${Math.floor(minutes / 60)} h`;
}

const grouped = (number) => Math.round(number).toLocaleString("en");

// The band in use; job.js puts in a new one when the status changes.
function band() {
  const found = job.querySelector("[data-progress]");
  if (found && found !== drawn) {
    drawn = found;
    const elapsed = Number(found.dataset.elapsed);
    began = performance.now() - elapsed * 1000;
    // A job that has only just begun is measured from its beginning; one that joined another, from now on.
    if ("joined" in found.dataset) samples = [];
    else samples = elapsed < 3 ? [{ now: began, done: 0 }] : [{ now: performance.now(), done: Number(found.dataset.done) }];
  }
  return found;
}

function rate(done) {
  const now = performance.now();
  if (samples.length && done < samples.at(-1).done) samples = [];
  samples.push({ now, done });
  while (samples.length > 2 && now - samples[0].now > WINDOW) samples.shift();
  const seconds = (now - samples[0].now) / 1000;
  // Of a job that was joined in its course, the first words may be old.
  const least = "joined" in drawn.dataset ? 3 : 0.5;
  return seconds >= least ? (done - samples[0].done) / seconds : null;
}

function say(root, name, text) {
  const place = root.querySelector(`[${name}]`);
  if (place && place.textContent !== text) place.textContent = text;
}

job.addEventListener("waybill:progress", ({ detail: { done, total, unit } }) => {
  const root = band();
  if (!root) return;
  const meter = root.querySelector("progress");
  const cancelling = root.closest(".band").querySelector("[data-cancelling]");
  if (total) {
    const percent = Math.min(Math.floor((done * 100) / total), 99);
    meter.max = 100;
    meter.value = Math.min((done * 100) / total, 99.5);
    if (!cancelling) say(root, "data-big", `${percent} %`);
    say(root, "data-count", `${grouped(done)} of about ${grouped(total)} ${unit}`);
  } else {
    meter.removeAttribute("value");
    if (!cancelling) say(root, "data-big", done ? `${grouped(done)} ${unit}` : "Starting");
    say(root, "data-count", done ? "the total is not known yet" : "");
  }
  const speed = rate(done);
  if (speed === null) return;
  say(root, "data-rate", `${grouped(speed)} ${unit}/s`);
  const left = total && speed > 0 && !cancelling ? (total - done) / speed : null;
  say(root, "data-left", left === null ? "–" : left < 1 ? "almost done" : `about ${duration(left)}`);
});

function tick() {
  const root = band();
  if (root) say(root, "data-elapsed-shown", duration((performance.now() - began) / 1000));
}

tick();
setInterval(tick, 1000);
