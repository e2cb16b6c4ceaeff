// The forecast follows the form; the first rows come on request. Without this both are a page of their own.

const form = document.querySelector("form[data-preflight]");
// What is typed is settled after so long, in milliseconds.
const PAUSE = 600;
// A file that is sent with the whole form only, in bytes.
const LARGE = 1024 * 1024;

if (form) {
  const panel = document.getElementById("forecast-panel");
  const show = panel.querySelector("[name=sample]");
  const wording = show?.textContent;
  panel.querySelector("[data-estimate]").hidden = true;
  let timer = null;
  let asking = null;

  // A list that must be there is in a text, in a file, or kept from before.
  const lacksList = () =>
    [...form.querySelectorAll("textarea[data-required]")].some(
      (text) => !text.value.trim() &&
        ![...text.closest(".field").querySelectorAll("input")].some((input) => input.checked || input.files?.length),
    );
  // A long list is not sent again at every letter typed.
  const hasLargeFile = () =>
    [...form.querySelectorAll("input[type=file]")].some((input) => input.files[0]?.size > LARGE);

  const ask = async (withSample) => {
    clearTimeout(timer);
    if (!withSample && (!form.checkValidity() || lacksList() || hasLargeFile())) return;
    asking?.abort();
    const mine = (asking = new AbortController());
    const body = new FormData(form);
    if (withSample) body.set("sample", "1");
    panel.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(form.dataset.preflight, {
        method: "POST", body, headers: { "X-Fragment": "preflight" }, signal: mine.signal,
      });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const found = page.getElementById("forecast");
      if (!found) throw new Error(`The forecast was answered with ${answer.status}.`);
      document.getElementById("forecast").replaceWith(found);
      if (withSample) {
        document.getElementById("sample").replaceWith(page.getElementById("sample"));
        document.getElementById("sample-title")?.focus();
      }
    } catch (error) {
      if (error.name !== "AbortError") console.warn(error.message);
    } finally {
      if (asking === mine) panel.removeAttribute("aria-busy");
      if (withSample) {
        show.removeAttribute("aria-disabled");
        show.textContent = wording;
      }
    }
  };

  show?.addEventListener("click", (event) => {
    event.preventDefault();
    if (show.getAttribute("aria-disabled") === "true") return;
    show.setAttribute("aria-disabled", "true");
    show.textContent = "Reading the first rows …";
    ask(true);
  });
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      // Old rows would be taken for those of the new answers.
      document.getElementById("sample").replaceChildren();
      ask(false);
    }, PAUSE);
  };
  form.addEventListener("input", soon);
  form.addEventListener("change", soon);
  if (!panel.querySelector(".facts")) ask(false);
}
