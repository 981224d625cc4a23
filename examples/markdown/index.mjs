// Renders Markdown to HTML with the npm package marked: {"markdown": "..."} -> {"html": "...", "words": n}.
import { marked } from "marked";

export const handler = async (event) => {
  if (typeof event.markdown !== "string") throw new TypeError("event.markdown must be a string");
  const html = marked.parse(event.markdown);
  console.log(`rendered ${event.markdown.length} characters`);
  return { html, words: event.markdown.split(/\s+/).filter(Boolean).length };
};
