// Sends a form's file in pieces before the form itself: with progress, pause, and going on after any cut.
// Without this the form sends the file by itself, in one go.
//
// What the page has, all in form[data-upload]:
//   input[name=csrf_token]            before the file, as the server checks it first
//   input[type=hidden][name=upload]   gets the id of the complete upload; then the form is sent without the file
//   input[type=file]
//   [type=submit]
// and, each optional:
//   data-uploads                      on the form: where uploads are made; /api/v1/uploads unless told otherwise
//   data-limit                        on the form: the most that may be uploaded, in bytes
//   [data-upload-drop]                takes dropped files; has the class "dragging" while one is above it
//   [data-upload-progress]            hidden but while there is progress; in it
//     progress                        0 to 100
//     [data-upload-big]               "45 %"
//     [data-upload-count]             "1.2 of 2.7 GiB · 12 MiB/s · 2 min left"
//   [data-upload-state]               role=status: one sentence whenever something changes
//   [data-upload-pause]               a button: "Pause", "Resume"
// data-upload-status on the form is "idle", "sending", "waiting", "paused", "failed" or "complete".

const MIB = 1024 * 1024;
// A piece is sent in about so many seconds: what a cut costs at most, and how often the server is asked.
const SHORT = 2, LONG = 8;
const SMALLEST = MIB, FIRST = 2 * MIB, LARGEST = 32 * MIB;
// The server takes 10,000 pieces of a file.
const PIECES = 5000;
// A connection over which nothing goes for so long is dead, in milliseconds.
const SILENCE = 30000;
const LONGEST_PAUSE = 30;
// The speed is that of the last seconds.
const WINDOW = 12000;
const STORE = "waybill-uploads";
const REMEMBERED = 7 * 24 * 3600 * 1000;

for (const form of document.querySelectorAll("form[data-upload]")) prepare(form);

function prepare(form) {
  const input = form.querySelector("input[type=file]");
  const id = form.querySelector("input[name=upload]");
  const button = form.querySelector("[type=submit]");
  const pause = form.querySelector("[data-upload-pause]");
  const show = display(form);
  let sender = null;

  const chosen = () => {
    const file = input.files[0];
    if (!file) return show.state("");
    const limit = Number(form.dataset.limit);
    if (limit && file.size > limit) {
      show.state(`${file.name} has ${size(file.size)}, and ${size(limit)} is the most that may be uploaded. Compress it with gzip or zip, or split it.`);
    } else if (known(file)) {
      show.state(`${file.name} was begun before: the upload goes on where it stopped.`);
    } else {
      show.state(`${file.name}, ${size(file.size)}.`);
    }
    return undefined;
  };

  const drop = form.querySelector("[data-upload-drop]") ?? form;
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    if (!input.disabled) drop.classList.add("dragging");
  });
  drop.addEventListener("dragleave", (event) => {
    if (!drop.contains(event.relatedTarget)) drop.classList.remove("dragging");
  });
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("dragging");
    if (input.disabled || !event.dataTransfer.files.length) return;
    if (event.dataTransfer.files.length > 1) {
      show.state("One file at a time, please.");
      return;
    }
    input.files = event.dataTransfer.files;
    chosen();
    button.focus();
  });
  input.addEventListener("change", chosen);

  const busy = (is) => {
    input.disabled = is;
    if (is) button.setAttribute("aria-disabled", "true");
    else button.removeAttribute("aria-disabled");
    button.classList.toggle("busy", is);
    if (pause) pause.hidden = !is;
  };

  form.addEventListener("submit", async (event) => {
    const file = input.files[0];
    if (id.value || (!file && !sender)) return;
    event.preventDefault();
    if (sender) return;
    sender = new Sender(file, form, show);
    busy(true);
    try {
      id.value = await sender.run();
      show.status("complete");
      show.state("All is there. It is being looked at …");
      form.submit();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      show.status("failed");
      show.state(error.message);
      busy(false);
    } finally {
      sender = null;
    }
  });
  pause?.addEventListener("click", () => {
    if (!sender) return;
    sender.toggle();
    pause.textContent = sender.paused ? "Resume" : "Pause";
  });
  addEventListener("beforeunload", (event) => {
    if (sender && !sender.paused) event.preventDefault();
  });
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    id.value = "";
    busy(false);
    show.status("idle");
    chosen();
  });
  if (input.files.length) chosen();
}

// A file dropped beside the field would replace the page.
for (const name of ["dragover", "drop"]) {
  addEventListener(name, (event) => {
    if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
  });
}

// Why it can't go on, in words for people. `resumable`: what was sent is of use for another try.
class Refused extends Error {
  constructor(message, resumable = false) {
    super(message);
    this.resumable = resumable;
  }
}

// The connection broke, or the server is away for the moment; `seconds` is how long it asked to be left alone.
class Broken extends Error {
  constructor(message, seconds = 0) {
    super(message);
    this.seconds = seconds;
  }
}

class Sender {
  constructor(file, form, show) {
    this.file = file;
    this.show = show;
    this.base = form.dataset.uploads ?? "/api/v1/uploads";
    this.token = form.elements.csrf_token.value;
    this.smallest = Math.max(SMALLEST, Math.ceil(file.size / PIECES));
    this.size = Math.max(FIRST, this.smallest);
    this.paused = false;
    this.wake = null;
    this.request = null;
  }

  // The id of the complete upload.
  async run() {
    let failures = 0;
    let resuming = true;
    for (;;) {
      await this.unpaused();
      try {
        if (resuming) await this.locate();
        resuming = false;
        this.show.status("sending");
        this.show.state(`Uploading ${this.file.name}.`);
        await this.pieces(() => { failures = 0; });
        await this.complete();
        forget(this.file);
        return this.id;
      } catch (error) {
        if (error instanceof Refused) {
          if (!error.resumable) forget(this.file);
          throw error;
        }
        if (!(error instanceof Broken)) throw error;
        resuming = true;
        if (this.paused) continue;
        failures += 1;
        await this.wait(Math.max(error.seconds, Math.min(2 ** (failures - 1), LONGEST_PAUSE)), error.message);
      }
    }
  }

  toggle() {
    this.paused = !this.paused;
    this.request?.abort();
    this.wake?.();
  }

  async unpaused() {
    while (this.paused) {
      this.show.status("paused");
      this.show.state("Paused. What was sent is safe, even if you close this page.");
      await new Promise((resolve) => { this.wake = resolve; });
    }
  }

  // Until the time is over, the network is back, or somebody clicks.
  async wait(seconds, why) {
    this.show.status("waiting");
    this.show.state(`${why} Trying again in ${Math.ceil(seconds)} s; what was sent is safe.`);
    await new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, seconds * 1000 * (0.8 + 0.4 * Math.random()));
      addEventListener("online", resolve, { once: true });
    });
  }

  // Where to go on: an upload that this file was sent to before, or a new one.
  async locate() {
    this.id ??= known(this.file);
    if (this.id) {
      const answer = await this.ask("GET", `${this.base}/${this.id}`);
      const upload = answer.ok ? await answer.json() : null;
      if (answer.status !== 404) await check(answer);
      if (upload && !upload.removed_at && upload.status !== "refused") {
        this.offset = upload.offset;
        this.show.begin(this.offset, this.file.size);
        return;
      }
      forget(this.file);
      this.id = null;
    }
    const answer = await this.ask("POST", this.base, JSON.stringify({ filename: this.file.name, bytes: this.file.size }));
    await check(answer);
    const upload = await answer.json();
    this.id = upload.id;
    this.offset = upload.offset;
    remember(this.file, this.id);
    this.show.begin(this.offset, this.file.size);
  }

  async pieces(progressed) {
    let next = this.piece(this.offset);
    let turns = 0;
    while (this.offset < this.file.size) {
      if (this.paused) throw new Broken("");
      const { start, data, digest } = await next;
      // What comes after it is read and hashed while it is sent.
      next = this.piece(start + data.byteLength);
      next.catch(() => {});
      const began = performance.now();
      const answer = await this.send(data, digest);
      if (answer.status === 409 && answer.offset !== null && (turns += 1) < 20) {
        this.offset = answer.offset;
        next = this.piece(this.offset);
        continue;
      }
      if (answer.status === 400 && answer.code === "digest_mismatch" && (turns += 1) < 4) {
        next = this.piece(this.offset);
        continue;
      }
      refuse(answer.status, answer.detail, answer.code, answer.wait);
      turns = 0;
      this.offset = start + data.byteLength;
      this.adapt((performance.now() - began) / 1000);
      this.show.progress(this.offset);
      progressed();
    }
  }

  async complete() {
    await check(await this.ask("POST", `${this.base}/${this.id}/completion`));
  }

  adapt(seconds) {
    if (seconds < SHORT) this.size = Math.min(this.size * 2, Math.max(LARGEST, this.smallest));
    if (seconds > LONG) this.size = Math.max(this.size / 2, this.smallest);
  }

  async piece(start) {
    let data;
    try {
      data = await this.file.slice(start, start + this.size).arrayBuffer();
    } catch {
      throw new Refused(`${this.file.name} can't be read any more: it was changed or moved. Choose it again.`);
    }
    // Browsers hash over HTTPS and on this machine only.
    const digest = crypto.subtle && btoa(String.fromCharCode(...new Uint8Array(await crypto.subtle.digest("SHA-256", data))));
    return { start, data, digest };
  }

  // By XMLHttpRequest, which tells how much of it has left.
  send(data, digest) {
    return new Promise((resolve, reject) => {
      const request = (this.request = new XMLHttpRequest());
      let alarm = null;
      const alive = () => {
        clearTimeout(alarm);
        alarm = setTimeout(() => request.abort(), SILENCE);
      };
      request.open("PATCH", `${this.base}/${this.id}`);
      request.setRequestHeader("Content-Type", "application/offset+octet-stream");
      request.setRequestHeader("Upload-Offset", this.offset);
      request.setRequestHeader("X-CSRFToken", this.token);
      if (digest) request.setRequestHeader("Content-Digest", `sha-256=:${digest}:`);
      request.upload.onprogress = ({ loaded }) => {
        alive();
        this.show.progress(this.offset + loaded);
      };
      request.onloadend = () => {
        clearTimeout(alarm);
        this.request = null;
        if (request.status === 0) {
          reject(new Broken("The connection broke."));
          return;
        }
        const told = problem(request.responseText);
        const offset = request.getResponseHeader("Upload-Offset");
        resolve({
          status: request.status,
          offset: offset === null ? null : Number(offset),
          code: told.code,
          detail: told.detail,
          wait: Number(request.getResponseHeader("Retry-After")),
        });
      };
      alive();
      request.send(data);
    });
  }

  async ask(method, url, body) {
    const headers = { "X-CSRFToken": this.token, Accept: "application/json" };
    if (body) headers["Content-Type"] = "application/json";
    try {
      return await fetch(url, { method, body, headers, signal: AbortSignal.timeout(SILENCE) });
    } catch {
      throw new Broken("The connection broke.");
    }
  }
}

async function check(answer) {
  if (answer.ok) return;
  const { code, detail } = problem(await answer.text());
  refuse(answer.status, detail, code, Number(answer.headers.get("Retry-After")));
}

// What an answer that is no good means: to be tried again, or the end.
function refuse(status, detail, code, wait) {
  if (status < 300) return;
  if (status === 401 || code === "csrf") {
    throw new Refused("You are signed out. Reload this page, sign in, and choose the file again: it goes on where it stopped.", true);
  }
  if (status === 429) throw new Broken(detail ?? "That was too often in a short time.", wait);
  if (code === "storage_full" || code === "storage_refused") throw new Broken(detail, LONGEST_PAUSE);
  if (status >= 500) throw new Broken("The server does not take it just now.", wait);
  // Bytes are missing, or it was removed: where to go on is asked once more.
  if (code === "wrong_offset" || code === "upload_gone" || status === 404) throw new Broken("The upload was interrupted.");
  throw new Refused(detail ?? "The server refused the file.");
}

function problem(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

// What people see.
function display(form) {
  const box = form.querySelector("[data-upload-progress]");
  const meter = box?.querySelector("progress");
  let total = 0;
  let samples = [];
  let drawn = 0;
  const say = (name, text) => {
    const place = form.querySelector(`[${name}]`);
    if (place && place.textContent !== text) place.textContent = text;
  };
  const progress = (done) => {
    const now = performance.now();
    samples.push({ now, done });
    while (samples.length > 2 && now - samples[0].now > WINDOW) samples.shift();
    if (now - drawn < 200 && done < total) return;
    drawn = now;
    const percent = total ? Math.min((done * 100) / total, 100) : 100;
    if (meter) meter.value = percent;
    say("data-upload-big", `${Math.floor(percent)} %`);
    const seconds = (now - samples[0].now) / 1000;
    const speed = seconds >= 1 ? (done - samples[0].done) / seconds : 0;
    const rate = speed > 0 ? ` · ${size(speed)}/s · ${span((total - done) / speed)} left` : "";
    say("data-upload-count", `${size(done)} of ${size(total)}${rate}`);
  };
  return {
    status(status) {
      form.dataset.uploadStatus = status;
      if (box) box.hidden = status === "idle" || status === "failed";
    },
    state: (text) => say("data-upload-state", text),
    progress,
    begin(done, of) {
      total = of;
      samples = [];
      drawn = 0;
      if (box) box.hidden = false;
      progress(done);
    },
  };
}

function size(bytes) {
  for (const [unit, name] of [[1024 ** 3, "GiB"], [MIB, "MiB"], [1024, "KiB"]]) {
    if (bytes >= unit) return `${(bytes / unit).toLocaleString("en", { maximumFractionDigits: 1 })} ${name}`;
  }
  return `${Math.round(bytes)} bytes`;
}

function span(seconds) {
  const whole = Math.max(Math.round(seconds), 0);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.round(whole / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// Which files were begun, so that a reload of the page costs nothing: the id by name, size and last change.

function known(file) {
  return begun()[mark(file)]?.id ?? null;
}

function remember(file, id) {
  keep({ ...begun(), [mark(file)]: { id, at: Date.now() } });
}

function forget(file) {
  const found = begun();
  delete found[mark(file)];
  keep(found);
}

function begun() {
  try {
    const found = Object.entries(JSON.parse(localStorage.getItem(STORE) ?? "{}"));
    return Object.fromEntries(found.filter(([, { at }]) => Date.now() - at < REMEMBERED));
  } catch {
    return {};
  }
}

function keep(found) {
  try {
    localStorage.setItem(STORE, JSON.stringify(found));
  } catch {
    // Private windows keep nothing; then a reload begins anew.
  }
}

function mark(file) {
  return `${file.name}|${file.size}|${file.lastModified}`;
}
