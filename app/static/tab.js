// What the browser's tab shows: percent and state in the title, a ring in the icon.

const job = document.querySelector("[data-job]");
const icon = document.querySelector("link[rel=icon]");
const SIGNS = { queued: "…", running: "▶", succeeded: "✓", failed: "✗", cancelled: "⊘" };
const COLOURS = { queued: "#b7791f", running: "#2450d6", succeeded: "#1b8a52", failed: "#d03a2f", cancelled: "#77808d" };
const SIZE = 64;

let percent = null;

function draw() {
  const status = job.dataset.status;
  const count = status === "running" && percent !== null ? `${percent} %` : SIGNS[status];
  document.title = `${count} ${job.dataset.title} · Waybill`;
  icon.type = "image/png";
  icon.href = picture(status);
}

function picture(status) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIZE;
  const pen = canvas.getContext("2d");
  const middle = SIZE / 2;
  pen.lineWidth = 11;
  pen.lineCap = "round";
  pen.strokeStyle = pen.fillStyle = COLOURS[status];
  if (status === "running") {
    const turn = (share) => -Math.PI / 2 + share * 2 * Math.PI;
    pen.globalAlpha = 0.25;
    pen.beginPath();
    pen.arc(middle, middle, middle - 7, 0, 2 * Math.PI);
    pen.stroke();
    pen.globalAlpha = 1;
    pen.beginPath();
    pen.arc(middle, middle, middle - 7, turn(0), turn(Math.max(percent ?? 25, 3) / 100));
    pen.stroke();
    return canvas.toDataURL();
  }
  pen.beginPath();
  pen.arc(middle, middle, middle - 2, 0, 2 * Math.PI);
  pen.fill();
  pen.strokeStyle = "#fff";
  pen.lineWidth = 8;
  pen.beginPath();
  for (const [x, y, starts] of STROKES[status]) {
    if (starts) pen.moveTo(x, y);
    else pen.lineTo(x, y);
  }
  pen.stroke();
  return canvas.toDataURL();
}

// Points of each sign; `true` lifts the pen before.
const STROKES = {
  queued: [[32, 16, true], [32, 33], [43, 40]],
  succeeded: [[18, 33, true], [28, 43], [46, 22]],
  failed: [[21, 21, true], [43, 43], [43, 21, true], [21, 43]],
  cancelled: [[20, 44, true], [44, 20]],
};

job.addEventListener("waybill:progress", ({ detail: { done, total } }) => {
  const now = total ? Math.min(Math.floor((done * 100) / total), 99) : null;
  if (now === percent) return;
  percent = now;
  draw();
});
job.addEventListener("waybill:summary", draw);

const meter = job.querySelector("progress[value][max='100']");
if (meter) percent = Math.floor(meter.value);
draw();
