// Requests to the pack's routes on the server.

import { fetchApi } from "./comfy.js";

async function contentOf(response) {
  if (response.ok) return response.json();
  const refusal = await response.json().catch(() => ({})); // ComfyUI's own error pages are not JSON
  throw new Error(refusal.error ?? `${response.status} ${response.statusText}`);
}

export const get = async (path) => contentOf(await fetchApi(`/unlearn/${path}`));

export const post = async (path, content = {}) =>
  contentOf(
    await fetchApi(`/unlearn/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(content),
    }),
  );
