// The pack's own addresses on the server.

import { fetchApi } from "./comfy.js";

async function answer(response) {
  if (response.ok) return response.json();
  const refusal = await response.json().catch(() => ({})); // ComfyUI's own pages are not JSON
  throw new Error(refusal.error ?? `${response.status} ${response.statusText}`);
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
