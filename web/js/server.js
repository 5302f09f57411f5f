// The pack's own addresses on the server.

import { fetchApi } from "./comfy.js";

async function answer(response) {
  const content = await response.json();
  if (!response.ok) throw new Error(content.error ?? response.statusText);
  return content;
}

export const ask = async (path) => answer(await fetchApi(`/unlearn/${path}`));

export const tell = async (path, content = {}) =>
  answer(
    await fetchApi(`/unlearn/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(content),
    }),
  );
