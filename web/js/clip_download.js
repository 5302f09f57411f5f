// Download of the CLIP that scores pictures of models without their own CLIP.

import { onEvent } from "./comfy.js";
import { h, setText } from "./dom.js";
import { get, post } from "./server.js";
import { t } from "./words.js";

const EVENT = "unlearn.download";
const BUSY = ["downloading", "checking"];

// Nothing is downloaded until the user presses the button; a workflow file cannot start it.
export function downloadButton() {
  const start = h("button", { hidden: true, onclick: () => send("scorer") });
  const cancel = h("button", {
    hidden: true,
    textContent: t("clip.cancel"),
    onclick: () => send("scorer/cancel"),
  });
  const bar = h("progress", { hidden: true, "aria-label": t("clip.progress") });
  const figures = h("span", { className: "quiet" });
  // Separate from the figures, because a screen reader reads out every change in here.
  const message = h("span", { className: "quiet", "aria-live": "polite" });
  let current = { state: null, at: 0 };
  let stop = null; // stops listening

  const say = (text) => setText(message, text);
  const listen = (active) => {
    if (active) stop ??= onEvent(EVENT, show);
    else {
      stop?.();
      stop = null;
    }
  };

  // Moves the focus too: keyboard users would lose their place with a disappearing button.
  function swap(busy) {
    const focused = document.activeElement;
    start.hidden = busy;
    cancel.hidden = bar.hidden = !busy;
    if (busy && focused === start) cancel.focus();
    if (!busy && focused === cancel) start.focus();
  }

  // The answer to a request may arrive after a newer event; older states are ignored.
  function show({ at, state, done, total, source, error }) {
    if (at < current.at) return;
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
    else if (BUSY.includes(current.state)) say(t("clip.cancelled"));
    current = { state, at };
    listen(busy);
  }

  const fail = ({ message }) => say(message);
  function send(path) {
    listen(true);
    post(path).then(show, (error) => {
      listen(BUSY.includes(current.state));
      fail(error);
    });
  }
  // The panel may have been redrawn, or the page reloaded, during a download.
  get("scorer").then(show, fail);
  return h("div", { className: "row download" }, start, cancel, bar, figures, message);
}
