// Buttons that move a column up and down; without this the places are typed as numbers.

const box = document.querySelector("[data-columns]");

if (box) {
  const list = box.querySelector("ol");
  const count = document.querySelector("[data-columns-count]");
  const said = document.createElement("p");
  said.className = "visually-hidden";
  said.setAttribute("role", "status");
  box.append(said);

  const renumber = () => {
    [...list.children].forEach((item, at) => {
      item.querySelector(".place").value = at + 1;
      const [up, down] = item.querySelectorAll("button");
      up.disabled = at === 0;
      down.disabled = at === list.children.length - 1;
    });
    const ticked = list.querySelectorAll("[name=column]:checked").length;
    count.textContent = `${ticked} of ${list.children.length}`;
  };

  const move = (item, by, button) => {
    if (by < 0) item.previousElementSibling?.before(item);
    else item.nextElementSibling?.after(item);
    renumber();
    // The focus goes along; a button that has reached the end hands it to its twin.
    (button.disabled ? item.querySelector("button:not(:disabled)") : button)?.focus();
    const place = [...list.children].indexOf(item) + 1;
    said.textContent = `${item.querySelector("[name=column]").value} is now ${place} of ${list.children.length}`;
    box.dispatchEvent(new Event("change", { bubbles: true }));
  };

  for (const item of list.children) {
    const place = item.querySelector(".place");
    const name = item.querySelector("[name=column]").value;
    place.hidden = true;
    const buttons = document.createElement("span");
    buttons.className = "moves";
    for (const [by, sign, word] of [[-1, "↑", "up"], [1, "↓", "down"]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "btn btn-quiet";
      button.textContent = sign;
      button.setAttribute("aria-label", `Move ${name} ${word}`);
      button.addEventListener("click", () => move(item, by, button));
      buttons.append(button);
    }
    place.after(buttons);
  }
  list.addEventListener("change", renumber);
  renumber();
}
