// Keeps <time data-relative> in words that are still true, in the reader's language of time zones.

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });

export function relative(at, now = Date.now()) {
  const seconds = Math.round((at - now) / 1000);
  const distance = Math.abs(seconds);
  for (const [unit, size] of UNITS) {
    if (distance < size) continue;
    const count = Math.floor(distance / size);
    const words = `${count} ${unit}${count === 1 ? "" : "s"}`;
    return seconds < 0 ? `${words} ago` : `in ${words}`;
  }
  return seconds <= 0 ? "just now" : "in less than a minute";
}

export function refresh(root = document) {
  for (const time of root.querySelectorAll("time[data-relative]")) {
    const at = Date.parse(time.dateTime);
    const words = relative(at);
    if (time.textContent !== words) time.textContent = words;
    if (!time.dataset.local) {
      time.dataset.local = "yes";
      time.title = exact.format(at);
    }
  }
}

refresh();
setInterval(refresh, 20000);
