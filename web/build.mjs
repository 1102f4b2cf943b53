// Builds the page of `vaezoo explore` into a folder, by default that of the Python package. The result is committed.

import { build } from "esbuild";
import { cp } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "..", "vaezoo", "explore", "page");

await build({
  entryPoints: [join(here, "src", "explore.ts"), join(here, "src", "explore.css")],
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife", // a classic script, which also runs, and can say what is wrong, when the page is opened as a file
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
});
await cp(join(here, "src", "index.html"), join(out, "index.html"));
