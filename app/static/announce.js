// Tells a screen reader at a quarter, a half, three quarters and the end; more would be noise.

const job = document.querySelector("[data-job]");
const place = document.getElementById("announcer");
const ENDS = {
  succeeded: "The export is complete. The download is ready.",
  failed: "The export failed.",
  cancelled: "The export was cancelled.",
};

let quarter = Math.floor((job.querySelector("progress[max='100']")?.value ?? 0) / 25);
let status = job.dataset.status;

job.addEventListener("waybill:progress", ({ detail: { done, total } }) => {
  const now = total ? Math.min(Math.floor((done * 4) / total), 3) : 0;
  if (now <= quarter) return;
  quarter = now;
  place.textContent = `${now * 25} percent done.`;
});
job.addEventListener("waybill:summary", ({ detail }) => {
  if (detail.status === status) return;
  status = detail.status;
  // Whatever it is now, another attempt begins at nothing.
  quarter = 0;
  if (detail.final) place.textContent = ENDS[status];
});
