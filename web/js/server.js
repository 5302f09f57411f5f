// The pack's own addresses on the server.

import { api } from "../../../scripts/api.js";

async function answer(response) {
  const content = await response.json();
  if (!response.ok) throw new Error(content.error ?? response.statusText);
  return content;
}

export const ask = async (path) => answer(await api.fetchApi(`/unlearn/${path}`));

export const tell = async (path, content = {}) =>
  answer(
    await api.fetchApi(`/unlearn/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(content),
    }),
  );

// Where the browser finds a file that the server has named.
export const viewOf = (file) => api.apiURL(`/view?${new URLSearchParams(file)}`);
