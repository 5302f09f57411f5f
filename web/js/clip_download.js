// The button that fetches the CLIP which judges models that bring no judge along.

import { api } from "../../../scripts/api.js";

import { h } from "./dom.js";
import { ask, tell } from "./server.js";
import { t } from "./words.js";

// Nothing is fetched before the person has pressed it: no workflow file can.
export function downloadButton() {
  const told = h("span", { className: "quiet" });
  const button = h("button", { textContent: t("clip.fetch") });
  const megabytes = (bytes) => Math.round(bytes / 1e6);
  const stop = () => api.removeEventListener("unlearn.download", follow);
  const fail = ({ message }) => {
    stop();
    told.textContent = message;
    button.disabled = false;
  };
  const finish = () => {
    stop();
    told.textContent = t("clip.done");
    button.disabled = true;
  };
  function follow({ detail: { done, total, error } }) {
    if (error) fail({ message: error });
    else if (done === total) finish();
    else told.textContent = t("clip.running", { done: megabytes(done), total: megabytes(total) });
  }
  const listen = () => {
    button.disabled = true;
    api.addEventListener("unlearn.download", follow);
  };
  button.addEventListener("click", () => {
    listen();
    tell("scorer").then(({ present }) => present && finish(), fail);
  });
  // The panel may have been drawn anew, or the page reloaded, while it is being fetched.
  ask("scorer").then(({ present, running }) => {
    if (present) finish();
    else if (running) listen();
  }, fail);
  return h("div", { className: "row" }, button, told);
}
