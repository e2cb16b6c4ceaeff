// Asks before what cannot be undone: a form with data-confirm is sent only after a yes.

const dialog = document.createElement("dialog");
dialog.className = "confirm";
dialog.setAttribute("aria-labelledby", "confirm-text");
const words = document.createElement("p");
words.id = "confirm-text";
const buttons = document.createElement("div");
buttons.className = "confirm-buttons";
const no = button("btn btn-outline-secondary", "Go back");
const yes = button("btn btn-danger", "Yes");
buttons.append(no, yes);
dialog.append(words, buttons);
document.body.append(dialog);

let asked = null;

function button(className, text) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = className;
  made.textContent = text;
  return made;
}

document.addEventListener("submit", (event) => {
  if (!event.target.dataset.confirm) return;
  event.preventDefault();
  asked = event.target;
  words.textContent = asked.dataset.confirm;
  yes.textContent = asked.dataset.confirmLabel;
  dialog.showModal();
  no.focus();
});
no.addEventListener("click", () => dialog.close());
yes.addEventListener("click", () => {
  dialog.close();
  // The page may have swapped its part in the meantime; a form outside the page is not sent.
  if (!asked.isConnected) {
    asked.hidden = true;
    document.body.append(asked);
  }
  asked.submit();
});
