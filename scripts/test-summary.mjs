// After `npm test`: the counts in one plain line; a run that skipped a test, or ran none, fails.
import { readFileSync } from "node:fs";

const results = JSON.parse(readFileSync(new URL("../node_modules/.klio-tests.json", import.meta.url), "utf8"));
const { numPassedTests: passed, numFailedTests: failed, numPendingTests: skipped } = results;
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
if (passed === 0 || failed > 0 || (skipped > 0 && process.env.CI)) process.exit(1);
