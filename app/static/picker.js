// A calendar beside a field that also takes words ("last month"): the browser's own picker fills the field.

const SIGN = '<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="M2.5 4h11v9.5h-11zM2.5 7h11M5.5 2.5V5M10.5 2.5V5"/></svg>';

for (const box of document.querySelectorAll("[data-picker]")) {
  const text = box.querySelector("input");
  const native = document.createElement("input");
  if (!("showPicker" in native)) continue;
  native.type = box.dataset.picker;
  native.className = "picker-native";
  native.tabIndex = -1;
  native.setAttribute("aria-hidden", "true");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "picker-button";
  button.innerHTML = SIGN;
  button.setAttribute("aria-label", `Pick from a calendar: ${text.labels[0]?.firstChild.textContent.trim() ?? ""}`);
  button.addEventListener("click", () => {
    native.value = text.value;
    native.showPicker();
  });
  native.addEventListener("change", () => {
    text.value = native.value;
    text.dispatchEvent(new Event("input", { bubbles: true }));
    text.focus();
  });
  box.append(native, button);
}
