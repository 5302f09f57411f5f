// The size of the picture cache in ComfyUI's settings, its limit, and a button that clears it.

import { h, setText } from "./dom.js";
import { get, post } from "./server.js";
import { t } from "./words.js";

const gigabytes = (bytes) => (bytes / 1e9).toFixed(2);

function cachePanel() {
  const message = h("span", { "aria-live": "polite" });
  const clear = h("button", { disabled: true, textContent: t("cache.clear"), onclick: () => load(post("cache/clear")) });
  const most = h("input", { type: "number", min: 0.1, step: "any", disabled: true, style: "width: 6em" });
  most.onchange = () => load(post("cache/limit", { gigabytes: most.valueAsNumber }));

  function show({ pictures, size, limit }) {
    clear.disabled = pictures === 0;
    most.disabled = false;
    most.value = limit / 1e9;
    setText(message, t("cache.size", { n: pictures, size: gigabytes(size), limit: gigabytes(limit) }));
  }

  function load(answer) {
    clear.disabled = true;
    answer.then(show, (error) => setText(message, error.message));
  }

  load(get("cache"));
  const style = "display: flex; align-items: center; gap: 12px";
  const label = h("label", {}, `${t("cache.limit")} `, most);
  return h("div", { className: "unlearn-cache", style }, message, label, clear);
}

export const cacheSetting = () => ({
  id: "Unlearn.PictureCache",
  category: ["Unlearn", "Unlearn", "PictureCache"],
  name: t("cache.name"),
  tooltip: t("cache.tooltip"),
  type: cachePanel,
  defaultValue: "",
});
