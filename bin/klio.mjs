#!/usr/bin/env node
// Runs the built program where it is installed, the sources in a checkout.
import { existsSync } from "node:fs";

const built = new URL("../dist/main.js", import.meta.url);
await import(existsSync(built) ? built.href : new URL("../src/main.ts", import.meta.url).href);
