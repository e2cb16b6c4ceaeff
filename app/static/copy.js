// Buttons that copy: a text by its element's id (data-copy), or the log (data-copy-log).

function show() {
  for (const button of document.querySelectorAll("[data-copy], [data-copy-log]")) button.hidden = false;
}

function text(button) {
  if (button.dataset.copy) return document.getElementById(button.dataset.copy).textContent;
  const lines = document.querySelectorAll("#log-lines .line");
  return [...lines].map((line) => [
    line.dataset.number,
    line.querySelector("time").dateTime,
    line.querySelector(".line-text").textContent,
  ].join("\t")).join("\n");
}

async function copy(words) {
  if (navigator.clipboard) return navigator.clipboard.writeText(words);
  // Plain http has no clipboard of its own.
  const area = document.createElement("textarea");
  area.value = words;
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("The browser did not let us copy.");
}

async function answer(button) {
  const label = button.querySelector("[data-copy-label]");
  const words = label.dataset.words ??= label.textContent;
  try {
    await copy(text(button));
    label.textContent = "Copied";
  } catch {
    label.textContent = "Not allowed";
  }
  setTimeout(() => { label.textContent = words; }, 2000);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy], [data-copy-log]");
  if (button) answer(button);
});
document.querySelector("[data-job]")?.addEventListener("waybill:summary", show);
show();
