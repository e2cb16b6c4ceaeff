// Follows a job: by its event stream while that works, else by asking for its JSON again and again.
//
// On the element [data-stream-url] it dispatches waybill:log {number, at, level, text}, each number once and
// in order, waybill:progress {done, total, unit}, waybill:status {status}, and waybill:connection {state},
// which is "open", "lost" or, after a final status, "ended".

const FINAL = new Set(["succeeded", "failed", "cancelled"]);
// A stream that says nothing for so long may be dead, or held back by a proxy: the JSON tells. Milliseconds.
const SILENCE = 15000;
const POLL = 2000;
// A hidden tab gives its connection back, as a browser has six for one host; its title still moves.
const HIDDEN = 30000;
const HIDDEN_POLL = 5000;
const LONGEST_PAUSE = 15000;
// After so many failures in a row the stream is given up, for so many polls.
const PATIENCE = 3;
const WHILE = 30;
// Lines in one answer of the log.
const PAGE = 1000;

class Follower {
  #element;
  #stream;
  #job;
  #last;
  #known = {};
  #state = "";
  #source = null;
  #timer = 0;
  #turn = 0;
  #failures = 0;

  constructor(element) {
    this.#element = element;
    this.#stream = new URL(element.dataset.streamUrl, location.href);
    this.#job = element.dataset.pollUrl;
    this.#last = Number(this.#stream.searchParams.get("after"));
  }

  get streaming() {
    return this.#source !== null;
  }

  // Open the stream where it was left.
  listen() {
    this.stop();
    if (this.#ended) return;
    if (!("EventSource" in window)) { this.poll(POLL); return; }
    this.#stream.searchParams.set("after", this.#last);
    const source = this.#source = new EventSource(this.#stream);
    const on = (name, take) => source.addEventListener(name, (event) => {
      this.#failures = 0;
      this.#watch();
      take(JSON.parse(event.data));
    });
    on("log", (line) => this.#line(line));
    on("progress", (progress) => this.#progress(progress));
    on("status", ({ status }) => this.#status(status));
    source.addEventListener("open", () => this.#say("open"));
    source.addEventListener("error", () => {
      this.#say("lost");
      // While it is CONNECTING the browser tries again by itself.
      if (source.readyState === EventSource.CLOSED) this.#failed();
    });
    this.#watch();
  }

  // Ask every `pause` milliseconds; after so many `times` try the stream again.
  async poll(pause, times = Infinity) {
    this.stop();
    if (this.#ended) return;
    const turn = this.#turn;
    const answered = (await this.#ask()) !== null;
    if (turn !== this.#turn || this.#ended) return;
    if (answered) this.#say("open");
    this.#timer = setTimeout(() => (times > 1 ? this.poll(pause, times - 1) : this.listen()), pause);
  }

  stop() {
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  get #ended() {
    return this.#state === "ended";
  }

  #watch() {
    if (this.#ended) return;
    clearTimeout(this.#timer);
    const turn = this.#turn;
    this.#timer = setTimeout(async () => {
      const news = await this.#ask();
      if (turn !== this.#turn || this.#ended) return;
      if (news) this.#failed();
      else this.#watch();
    }, SILENCE);
  }

  async #failed() {
    this.stop();
    const turn = this.#turn;
    this.#failures += 1;
    // 204 says that there is nothing more to come: the JSON has the status.
    await this.#ask();
    if (turn !== this.#turn || this.#ended) return;
    const pause = Math.min(500 * 2 ** this.#failures, LONGEST_PAUSE) * (0.5 + Math.random());
    if (this.#failures < PATIENCE) this.#timer = setTimeout(() => this.listen(), pause);
    else this.poll(POLL, WHILE);
  }

  // Tell what the JSON knows. True if some of it was news, null if there was no answer.
  async #ask() {
    try {
      const job = await this.#fetch(this.#job);
      let news = job.status !== this.#known.status || job.progress.done !== this.#known.done;
      // Read after the status, so that a final one is told when all lines are.
      for (let count = PAGE; count === PAGE;) {
        const { items } = await this.#fetch(`${this.#job}/log?after=${this.#last}`);
        for (const line of items) news = this.#line(line) || news;
        count = items.length;
      }
      this.#progress(job.progress);
      this.#status(job.status);
      return news;
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof Refused)) throw error;
      this.#say("lost");
      return null;
    }
  }

  async #fetch(url) {
    const answer = await fetch(url, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Refused(`${url} answered ${answer.status}`);
    return answer.json();
  }

  #line(line) {
    if (line.number <= this.#last) return false;
    this.#last = line.number;
    this.#dispatch("log", line);
    return true;
  }

  #progress(progress) {
    this.#known.done = progress.done;
    this.#dispatch("progress", progress);
  }

  #status(status) {
    this.#known.status = status;
    this.#dispatch("status", { status });
    if (!FINAL.has(status)) return;
    this.stop();
    this.#say("ended");
  }

  #say(state) {
    if (this.#state === state || this.#ended) return;
    this.#state = state;
    this.#dispatch("connection", { state });
  }

  #dispatch(name, detail) {
    this.#element.dispatchEvent(new CustomEvent(`waybill:${name}`, { detail }));
  }
}

// The server answered, but not with what was asked for.
class Refused extends Error {}

function start() {
  const element = document.querySelector("[data-stream-url][data-poll-url]");
  if (!element) return;
  const follower = new Follower(element);
  let hiding = 0;
  follower.listen();
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(() => follower.poll(HIDDEN_POLL), HIDDEN);
    else if (!follower.streaming) follower.listen();
  });
  addEventListener("pagehide", () => follower.stop());
  addEventListener("pageshow", (event) => { if (event.persisted) follower.listen(); });
}

// Not before the page's other modules listen.
if (document.readyState === "complete") start();
else addEventListener("DOMContentLoaded", start);
