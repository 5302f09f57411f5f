// The size of the picture cache in ComfyUI's settings, and a button that clears it.

import { h, setText } from "./dom.js";
import { get, post } from "./server.js";
import { t } from "./words.js";

const gigabytes = (bytes) => (bytes / 1e9).toFixed(2);

function cachePanel() {
  const message = h("span", { "aria-live": "polite" });
  const clear = h("button", { disabled: true, textContent: t("cache.clear"), onclick: () => load(post("cache/clear")) });

  function show({ pictures, size, limit }) {
    clear.disabled = pictures === 0;
    setText(message, t("cache.size", { n: pictures, size: gigabytes(size), limit: gigabytes(limit) }));
  }

  function load(answer) {
    clear.disabled = true;
    answer.then(show, (error) => setText(message, error.message));
  }

  load(get("cache"));
  const style = "display: flex; align-items: center; gap: 12px";
  return h("div", { className: "unlearn-cache", style }, message, clear);
}

export const cacheSetting = () => ({
  id: "Unlearn.PictureCache",
  category: ["Unlearn", "Unlearn", "PictureCache"],
  name: t("cache.name"),
  tooltip: t("cache.tooltip"),
  type: cachePanel,
  defaultValue: "",
});
