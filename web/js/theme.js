// Which palette our panels take: the one that can be read on the background they really have. Custom
// palettes of ComfyUI may be anything, and its front ends mark light and dark in different ways.

import { onThemeChange } from "./comfy.js";

const MIDDLE = 0.18; // relative luminance that is as far from black as from white, in contrast

function luminance(color) {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((byte) => {
    const value = byte / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

// `data-unlearn-theme` on <body> is "light" or "dark"; `changed` is called after each change.
export function followTheme(changed) {
  const look = () => {
    const background = getComputedStyle(document.body).getPropertyValue("--comfy-input-bg").trim();
    const theme = luminance(background || "#222") > MIDDLE ? "light" : "dark";
    if (document.body.dataset.unlearnTheme !== theme) document.body.dataset.unlearnTheme = theme;
    changed();
  };
  let waiting = false; // a palette sets a hundred properties, one by one
  onThemeChange(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      look();
    });
  });
  look();
}
