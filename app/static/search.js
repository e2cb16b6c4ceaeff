// Filters a list while one types. Without this the form asks the server, which filters the same way.

const input = document.querySelector("input[data-search]");

if (input) {
  const list = document.querySelector(input.dataset.search);
  const rows = [...list.querySelectorAll("[data-text]")];
  const nothing = document.getElementById("nothing");
  const found = document.getElementById("found");

  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !words.every((word) => row.dataset.text.includes(word));
      if (!row.hidden) shown += 1;
    }
    for (const group of list.querySelectorAll(".group")) {
      group.hidden = !group.querySelector("[data-text]:not([hidden])");
    }
    nothing.hidden = shown > 0;
    found.textContent = words.length ? `${shown} of ${rows.length} reports` : "";
    const url = new URL(location.href);
    if (words.length) url.searchParams.set("q", input.value.trim());
    else url.searchParams.delete("q");
    history.replaceState(history.state, "", url);
  };

  input.addEventListener("input", filter);
  input.form.addEventListener("submit", (event) => {
    event.preventDefault();
    const only = rows.filter((row) => !row.hidden);
    if (only.length === 1) only[0].querySelector("a").click();
  });
  // "/" jumps to the search, as in most catalogues.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    input.focus();
  });
}
