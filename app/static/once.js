// A form is sent once, however often its button is clicked, and anew after going back to it.
// The server has the last word: it knows the form by its nonce.

for (const form of document.querySelectorAll("form[data-once]")) {
  const button = form.querySelector("[type=submit]");
  let sent = false;
  form.addEventListener("submit", (event) => {
    if (event.submitter?.hasAttribute("formaction")) return;
    if (sent) event.preventDefault();
    sent = true;
    button.setAttribute("aria-disabled", "true");
    button.classList.add("busy");
  });
  addEventListener("pageshow", (event) => {
    sent = false;
    button.removeAttribute("aria-disabled");
    button.classList.remove("busy");
    if (event.persisted) {
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      form.elements.nonce.value = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    }
  });
}

// Who is told of mistakes starts at the first one.
(document.querySelector("[aria-invalid]") ?? document.querySelector("[data-focus]"))?.focus();
