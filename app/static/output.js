// Shows only what the chosen format can: its own dialects, its own compressions.

const box = document.querySelector("[data-output]");

function fit() {
  const format = box.querySelector("[name=format]:checked");
  for (const row of box.querySelectorAll("[data-format]")) row.hidden = row.dataset.format !== format.value;
  const known = format.dataset.compressions.split(" ");
  for (const choice of box.querySelectorAll("[name=compression]")) {
    choice.disabled = !known.includes(choice.value);
    if (choice.disabled && choice.checked) box.querySelector("[name=compression][value=none]").checked = true;
  }
}

box.addEventListener("change", fit);
addEventListener("pageshow", fit);
fit();
