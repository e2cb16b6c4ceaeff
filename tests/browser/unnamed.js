// What a screen reader could not tell of: controls without names, pointers to nothing, headings out of order.
() => {
  const wrong = [];
  const tell = (element, what) => wrong.push(`${what}: ${element.outerHTML.slice(0, 120)}`);
  const ids = (element, attribute) => (element.getAttribute(attribute) ?? "").split(/\s+/).filter(Boolean);
  const name = (element) => (element.getAttribute("aria-label") ?? element.textContent).trim();
  for (const field of document.querySelectorAll("input, select, textarea")) {
    if (field.matches("[type=hidden], [aria-hidden]")) continue;
    if (!field.labels.length && !field.getAttribute("aria-label")) tell(field, "no label");
  }
  for (const control of document.querySelectorAll("a[href], button, summary")) {
    if (!name(control)) tell(control, "no name");
  }
  for (const bar of document.querySelectorAll("progress, nav, [role=log], dialog")) {
    if (!bar.getAttribute("aria-label") && !bar.getAttribute("aria-labelledby")) tell(bar, "no label");
  }
  for (const pointing of document.querySelectorAll("[aria-describedby], [aria-labelledby]")) {
    for (const id of [...ids(pointing, "aria-describedby"), ...ids(pointing, "aria-labelledby")]) {
      if (!document.getElementById(id)) tell(pointing, `points to no #${id}`);
    }
  }
  const seen = new Set();
  for (const { id } of document.querySelectorAll("[id]")) {
    if (seen.has(id)) wrong.push(`two of #${id}`);
    seen.add(id);
  }
  const headings = [...document.querySelectorAll("h1, h2, h3, h4")].filter((one) => one.checkVisibility());
  const levels = headings.map((heading) => Number(heading.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) wrong.push(`${levels} is not one h1`);
  levels.forEach((level, i) => {
    if (i && level > levels[i - 1] + 1) wrong.push(`h${level} after h${levels[i - 1]}`);
  });
  if (!document.documentElement.lang) wrong.push("no language");
  if (!document.querySelector("main")) wrong.push("no main");
  return wrong;
}
