// The download of the CLIP that scores pictures for models without a scorer of their own.

import { onEvent } from "./comfy.js";
import { h, setText } from "./dom.js";
import { ask, tell } from "./server.js";
import { t } from "./words.js";

const EVENT = "unlearn.download";
const BUSY = ["downloading", "checking"];

// Nothing is downloaded before the person has pressed the button: no workflow file can.
export function downloadButton() {
  const start = h("button", { hidden: true, onclick: () => send("scorer") });
  const cancel = h("button", {
    hidden: true,
    textContent: t("clip.cancel"),
    onclick: () => send("scorer/cancel"),
  });
  const bar = h("progress", { hidden: true, "aria-label": t("clip.progress") });
  const figures = h("span", { className: "quiet" });
  // Apart from the figures: a screen reader reads out every change in here.
  const news = h("span", { className: "quiet", "aria-live": "polite" });
  let shown = { state: null, at: 0 };
  let stop = null; // stops listening

  const say = (text) => setText(news, text);
  const listen = (wanted) => {
    if (wanted) stop ??= onEvent(EVENT, show);
    else {
      stop?.();
      stop = null;
    }
  };

  // Keyboard users would lose their place with a button that disappears under them.
  function swap(busy) {
    const focused = document.activeElement;
    start.hidden = busy;
    cancel.hidden = bar.hidden = !busy;
    if (busy && focused === start) cancel.focus();
    if (!busy && focused === cancel) start.focus();
  }

  // The answer to a press may come after the event that follows it: the newest state counts.
  function show({ at, state, done, total, source, error }) {
    if (at < shown.at) return;
    const busy = BUSY.includes(state);
    const megabytes = (bytes) => Math.round(bytes / 1e6);
    const values = { done: megabytes(done), total: megabytes(total), source };
    start.textContent = t(done > 0 ? "clip.resume" : "clip.fetch", values);
    bar.max = total;
    bar.value = done;
    figures.textContent = busy ? t(state === "checking" ? "clip.checking" : "clip.running", values) : "";
    swap(busy);
    if (state === "present") {
      start.hidden = true;
      say(t("clip.done"));
    } else if (error) say(error);
    else if (busy) say(t("clip.started"));
    else if (BUSY.includes(shown.state)) say(t("clip.cancelled"));
    shown = { state, at };
    listen(busy);
  }

  const fail = ({ message }) => say(message);
  function send(path) {
    listen(true);
    tell(path).then(show, (error) => {
      listen(BUSY.includes(shown.state));
      fail(error);
    });
  }
  // The panel may have been drawn anew, or the page reloaded, during a download.
  ask("scorer").then(show, fail);
  return h("div", { className: "row download" }, start, cancel, bar, figures, news);
}
