// Offers the browser's own time zone to whoever has chosen none yet.

const line = document.querySelector("#zone[data-offer]");
const own = Intl.DateTimeFormat().resolvedOptions().timeZone;

if (line && own) {
  const name = line.querySelector("[data-zone]");
  const offer = document.createElement("span");
  offer.className = "zone-offer";
  const choices = own === name.textContent ? [] : [[own, `Use ${own}, as in this browser`], [name.textContent, `Keep ${name.textContent}`]];
  for (const [zone, label] of choices) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn btn-sm btn-outline-secondary";
    button.textContent = label;
    button.addEventListener("click", () => choose(zone));
    offer.append(button);
  }
  line.append(offer);

  const choose = async (zone) => {
    const form = document.getElementById("ask");
    const body = new FormData();
    body.set("csrf_token", form.elements.csrf_token.value);
    body.set("time_zone", zone);
    try {
      // The answer is a page of its own, which nobody needs to see.
      const answer = await fetch(line.dataset.offer, { method: "POST", body, redirect: "manual" });
      if (answer.type !== "opaqueredirect") throw new Error(`answered with ${answer.status}`);
      name.textContent = zone;
      offer.remove();
      form.dispatchEvent(new Event("change"));
    } catch (error) {
      offer.replaceChildren(` That did not work (${error.message}); choose it on your account's page.`);
    }
  };
}
