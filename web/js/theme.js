// Chooses the panels' light or dark palette by their actual background colour: ComfyUI's custom palettes
// may have any colour, and its front ends mark light and dark in different ways.

import { onThemeChange } from "./comfy.js";

const MIDDLE = 0.18; // relative luminance with equal contrast to black and to white

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

// Sets `data-unlearn-theme` on <body> to "light" or "dark"; `onChange` is called after each change.
export function followTheme(onChange) {
  const look = () => {
    const background = getComputedStyle(document.body).getPropertyValue("--comfy-input-bg").trim();
    const theme = luminance(background || "#222") > MIDDLE ? "light" : "dark";
    if (document.body.dataset.unlearnTheme !== theme) document.body.dataset.unlearnTheme = theme;
    onChange();
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
